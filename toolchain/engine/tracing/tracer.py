"""From an exported program (torch.export) to the neutral graph."""

from __future__ import annotations

import logging
import operator
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from toolchain.engine.evaluate import evaluate
from toolchain.engine.run import to_tensors
from toolchain.engine.tracing.aliases import Aliases
from toolchain.engine.tracing.builder import CannotLower, GraphBuilder, is_torch, portable_path, source_of
from toolchain.engine.tracing.rules import ATEN_RULES, IDENTITIES, RESHAPES, VIEWS
from toolchain.errors import OptionError, UnsupportedError, raise_collected
from toolchain.graph import RECURRENT, WEIGHTED, DType, Finding, Graph, Op, TensorType, Value
from toolchain.graph.recurrence import read_steps, unroll


def trace(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    unroll_recurrent: bool = False,
) -> Graph:
    """The neutral graph of `model` in eval mode, at the shapes of `example_inputs` (an exported program has its own):
    forward's arguments in order or by name, arrays or nested containers of arrays.

    Inputs and outputs of nested containers are flat in the graph, in torch's order; None among them is left out. With
    `unroll_recurrent` recurrent layers are written out step by step.

    Raises UnsupportedError for data-dependent control flow and, all at once, for ops outside the set, each with the
    user's module path and line; OptionError for weights that are NaN or infinite.
    """
    program = model if isinstance(model, ExportedProgram) else export(model, example_inputs or ())
    graph = finite_masks(fold_constants(unroll_layers(lower(program), everywhere=unroll_recurrent)))
    _check_weights_are_constant(graph)
    bad = [name for name, array in graph.constants.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    raise_collected(
        OptionError,
        "the model's weights are not finite:",
        [f"{name} holds NaN or infinity" for name in bad],
        hint="load a checkpoint of a training that converged",
    )
    return graph


def export(model: nn.Module, example_inputs: Sequence[Any] | Mapping[str, Any]) -> ExportedProgram:
    """torch.export of `model` in eval mode; its training flags are put back.

    `example_inputs` are forward's arguments in order, or by name: arrays, or nested tuples, lists and dicts of arrays.
    """
    given = pytree.tree_map_only(np.ndarray, lambda array: to_tensors([array])[0], example_inputs)
    args, kwargs = ((), dict(given)) if isinstance(given, Mapping) else (tuple(given), {})
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        logging.disable(logging.CRITICAL)  # torch logs graphs and tracebacks of what is told in one message below
        return torch.export.export(model, args, kwargs)
    except Exception as error:
        raise _export_failed(error, given) from error
    finally:
        logging.disable(logging.NOTSET)
        for module, training in modes:
            module.training = training


def _export_failed(error: Exception, given: Any) -> UnsupportedError:
    where = _user_frame(error)
    reason = str(error).strip().splitlines() or [type(error).__name__]
    if _is_data_dependent(error):
        return UnsupportedError(
            f"data-dependent control flow cannot be exported: {reason[0]}",
            where=where,
            hint="compute both branches and choose with torch.where, or take the branch out of the model",
        )
    shapes = pytree.tree_map_only(torch.Tensor, lambda tensor: tuple(tensor.shape), given)
    shapes = list(shapes) if isinstance(shapes, tuple) else shapes
    return UnsupportedError(
        f"torch.export fails: {reason[0]}",
        where=where,
        hint=f"the model was given inputs of shape {shapes}; where these are wrong, give it others",
    )


def _is_data_dependent(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__} | {type(error.__cause__).__name__}
    words = ("data-dependent", "Could not guard", "boolean value of Tensor", "control flow")
    return "GuardOnDataDependentSymNode" in names or any(word in str(error) for word in words)


def _user_frame(error: BaseException) -> str | None:
    stack = traceback.extract_tb(error.__traceback__)
    frames = [
        frame
        for frame in stack
        if not is_torch(frame.filename) and frame.filename != __file__ and frame.filename[:1] != "<"
    ]
    return f"{portable_path(frames[-1].filename)}:{frames[-1].lineno}" if frames else None


def lower(program: ExportedProgram) -> Graph:
    """Every node of the program through its rule. Raises UnsupportedError that lists all that have none."""
    graph, findings = try_lower(program)
    raise_collected(
        UnsupportedError,
        f"{len(findings)} op(s) of the model have no counterpart in the graph:",
        [str(finding) for finding in findings],
        hint="write them with supported ops (README, supported ops), or leave that part out of the deployed model",
    )
    return graph


def try_lower(program: ExportedProgram) -> tuple[Graph, tuple[Finding, ...]]:
    """The graph, and the ops that have no rule; where there are any, the graph has no outputs."""
    builder = GraphBuilder()
    inputs: list[Value] = []
    values: dict[fx.Node, Any] = {}
    outputs: list[str] = []
    findings: dict[Finding, None] = {}
    placed = _placeholders(program, builder)
    aliases = Aliases(program.graph, VIEWS)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            values[node] = placed[node.name] if node.name in placed else _add_input(node, inputs, builder)
        elif node.op == "output":
            outputs = _outputs(node, program, values, builder) if not findings else []
        elif node.op == "call_function":
            builder.source = source_of(node)
            try:
                values[node] = _lower_node(node, values, builder, aliases)
            except CannotLower as why:
                findings[Finding(_op_name(node), str(why), builder.source)] = None
                values[node] = None
    return builder.finish(tuple(inputs), outputs), tuple(findings)


def _placeholders(program: ExportedProgram, builder: GraphBuilder) -> dict[str, Any]:
    """fx placeholder -> constant, parameters in shared memory stored once under the first name."""
    stored: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    placed: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        if isinstance(spec.arg, ConstantArgument):
            placed[spec.arg.name] = spec.arg.value  # None, or a number the program was exported for
        if spec.kind is InputKind.USER_INPUT or spec.target is None:
            continue
        source = program.state_dict if spec.target in program.state_dict else program.constants
        tensor = source[spec.target].detach()
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if key not in stored or not tensor.numel():
            # a copy: the user's module may be trained on, and the graph stays what it was
            kept = torch.float32 if tensor.is_floating_point() else tensor.dtype
            array = tensor.cpu().to(kept, copy=True, memory_format=torch.contiguous_format).numpy()
            stored[key] = builder.constant(array, spec.target)
        placed[spec.arg.name] = stored[key]
    return placed


def _add_input(node: fx.Node, inputs: list[Value], builder: GraphBuilder) -> str:
    kind = tensor_type(node.meta["val"])
    if kind is None or kind.dtype not in INPUT_DTYPES:
        found = getattr(node.meta["val"], "dtype", type(node.meta["val"]).__name__)
        raise UnsupportedError(
            f"input {node.name} is {str(found).removeprefix('torch.')}",
            hint=f"give example inputs of {', '.join(INPUT_DTYPES)}, and convert outside the model what is not",
        )
    inputs.append(Value(node.name, kind))
    builder.types[node.name] = kind
    return node.name


MASKED = 1e30
"""What stands for infinity in a mask: beyond all activations, and still finite when added up."""

_MASKING = frozenset(
    {Op.ADD, Op.SUB, Op.WHERE, Op.MINIMUM, Op.MAXIMUM, Op.LESS, Op.GREATER, Op.EQUAL, Op.NOT_EQUAL}
    | {Op.LESS_EQUAL, Op.GREATER_EQUAL, Op.CONCAT, Op.GATHER, Op.SLICE, Op.RESHAPE, Op.EXPAND, Op.PERMUTE}
)

INPUT_DTYPES = (DType.FLOAT32, DType.INT64, DType.INT32, DType.UINT8, DType.BOOL)
"""What a graph may be given."""


def tensor_type(example: Any, sizes: Mapping[str, int] = MappingProxyType({})) -> TensorType | None:
    """The graph's type of an exported program's tensor, which computes every float in float32; None for what is no
    tensor. `sizes` holds those that torch could not know, by their symbols; where one is missing it is 0."""
    if not isinstance(example, torch.Tensor):
        return None
    name = "float32" if example.dtype.is_floating_point else str(example.dtype).removeprefix("torch.")
    if name not in set(DType):
        return None
    return TensorType(DType(name), tuple(_known_size(size, sizes) for size in example.shape))


def _known_size(size: Any, sizes: Mapping[str, int]) -> int:
    if not isinstance(size, torch.SymInt) or size.node.has_hint():
        return int(size)
    value = size.node.expr.subs({symbol: sizes.get(str(symbol), 0) for symbol in size.node.expr.free_symbols})
    return int(value)


def _outputs(node: fx.Node, program: ExportedProgram, values: dict[fx.Node, Any], builder: GraphBuilder) -> list[str]:
    """The tensors among the user's outputs, in order. Raises UnsupportedError for those that no input reaches."""
    specs = program.graph_signature.output_specs
    pairs = zip(node.args[0], specs, strict=True)  # type: ignore[arg-type]
    wanted = [item for item, spec in pairs if spec.kind is OutputKind.USER_OUTPUT and item is not None]
    names = [values[item] if isinstance(item, fx.Node) else item for item in wanted]
    fixed = [
        f"output {place} is {name if not isinstance(name, str) else builder.types[name]}"
        for place, name in enumerate(names)
        if not isinstance(name, str) or builder.value_of(name) is not None
    ]
    raise_collected(
        UnsupportedError,
        "outputs that do not depend on the inputs are not part of a deployed model:",
        fixed,
        hint="keep them on the caller's side, and leave them out of what forward returns",
    )
    return names


def _op_name(node: fx.Node) -> str:
    return getattr(node.target, "_opname", getattr(node.target, "__name__", str(node.target)))


def _lower_node(node: fx.Node, values: dict[fx.Node, Any], builder: GraphBuilder, aliases: Aliases) -> Any:
    name = _op_name(node)
    in_place = name.endswith("_") and not name.startswith("__") and name not in ATEN_RULES
    name = name.removesuffix("_") if in_place else name
    aliases.see(node, name, in_place=in_place)
    result = _result(node, name, values, builder)
    if in_place and result is not None and result != values[node.all_input_nodes[0]]:
        aliases.write(node, result, values, builder, lambda view: _result(view, _op_name(view), values, builder))
    return result


def _result(node: fx.Node, name: str, values: dict[fx.Node, Any], builder: GraphBuilder) -> Any:
    """What the op `name` makes of the values of its arguments; None where one of these could not be made."""
    on_numbers = getattr(node.target, "__module__", "") in ("_operator", "math") and node.target is not operator.getitem
    silent = node.target is operator.getitem or on_numbers or name.startswith(("_assert", "sym_"))
    if not silent and name not in ATEN_RULES.keys() | IDENTITIES | RESHAPES:
        raise CannotLower("not in the op set")
    if any(values[n] is None and not _is_none(n) for n in node.all_input_nodes):
        return None  # reported where it began
    args: Any = fx.node.map_arg(list(node.args), values.__getitem__)
    kwargs: Any = fx.node.map_arg(dict(node.kwargs), values.__getitem__)
    if on_numbers:
        return node.target(*args, **kwargs)  # type: ignore[operator]
    if silent:
        return _member(node, args) if node.target is operator.getitem else _size(name, args, builder)
    results = node.meta.get("val")
    builder.wanted = tuple(_wanted(results if isinstance(results, (list, tuple)) else (results,), builder))
    if name in IDENTITIES:
        return builder.cast(args[0], builder.wanted[0].dtype)
    if name in RESHAPES:
        if builder.types[args[0]].dtype is not builder.wanted[0].dtype:
            raise CannotLower(f"bits cannot be read as another type, {builder.wanted[0].dtype}: use x.to")
        return builder.reshape(args[0], builder.wanted[0].shape)
    result = _apply(ATEN_RULES[name], builder, args, kwargs)
    _learn_sizes(results, result, builder)
    return result


def _is_none(node: fx.Node) -> bool:
    """Whether it stands for an input that was given as None, or for an assertion."""
    return node.op == "placeholder" or "_assert" in _op_name(node)


def _size(name: str, args: Any, builder: GraphBuilder) -> Any:
    """A size that torch asks for, or nothing where it only asserts."""
    return builder.shapes[args[0]][args[1]] if name == "sym_size" else None


def _wanted(results: Sequence[Any], builder: GraphBuilder) -> Iterator[TensorType]:
    for example in results:
        kind = tensor_type(example, builder.sizes)
        if kind is not None:
            yield kind


def _learn_sizes(example: Any, name: Any, builder: GraphBuilder) -> None:
    """Note the sizes that torch could not know, as how often a mask holds: the graph's masks are known."""
    if isinstance(example, torch.Tensor) and isinstance(name, str):
        for size, found in zip(example.shape, builder.shapes[name], strict=False):
            if isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None:
                builder.sizes[str(size)] = found


def _member(node: fx.Node, args: Any) -> Any:
    """One of an op's several results; None for one that the graph does not compute and nobody reads."""
    results, index = args
    if index >= len(results) and node.users:
        raise CannotLower(f"only the first result of {_op_name(node.all_input_nodes[0])} is computed, no indices")
    return results[index] if index < len(results) else None


def _apply(rule: Any, builder: GraphBuilder, args: Any, kwargs: Any) -> Any:
    try:
        return rule(builder, *args, **kwargs)
    except TypeError as error:
        raise CannotLower(f"these arguments are not supported ({error})") from error


def _check_weights_are_constant(graph: Graph) -> None:
    layers = [node for node in graph.nodes if node.op in WEIGHTED | RECURRENT or node.op is Op.BATCH_NORM]
    # a recurrent layer may start from computed states
    computed = [node for node in layers if not all(graph.is_constant(name) for name in node.inputs[1:5])]
    raise_collected(
        UnsupportedError,
        "weights must be constant, but these are computed from the input:",
        [f"{node.op} {node.name} [{node.source}]" for node in computed],
    )


def unroll_layers(graph: Graph, *, everywhere: bool = False) -> Graph:
    """Recurrent layers over one step, where nothing recurs, in plain ops; with `everywhere` those over several too."""
    steps = {node.output: graph.types[node.inputs[0]].shape[1] for node in graph.nodes if node.op in RECURRENT}
    return read_steps(unroll(graph, lambda node: everywhere or steps[node.output] == 1)) if steps else graph


def finite_masks(graph: Graph) -> Graph:
    """Infinities of constants that are only added, chosen or compared are replaced by `MASKED`, which does the same
    and can be told from a broken weight."""
    changed = {}
    for name, array in graph.constants.items():
        readers = graph.consumers.get(name, ())
        if array.dtype.kind == "f" and np.isinf(array).any() and all(reader.op in _MASKING for reader in readers):
            changed[name] = np.asarray(np.clip(array, -MASKED, MASKED), array.dtype)
    return graph.with_constants(changed)


def fold_constants(graph: Graph) -> Graph:
    """Nodes that read nothing but constants become constants."""
    constants = dict(graph.constants)
    nodes = []
    for node in graph.nodes:
        if all(name in constants for name in node.inputs) and node.output not in graph.outputs:
            with torch.no_grad():
                result = evaluate(node, to_tensors([constants[name] for name in node.inputs]))
            constants[node.output] = result.numpy()
        else:
            nodes.append(node)
    return graph.with_nodes(nodes, constants)
