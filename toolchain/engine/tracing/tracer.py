"""From an exported program (torch.export) to the neutral graph."""

from __future__ import annotations

import logging
import operator
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from toolchain.engine.evaluate import evaluate
from toolchain.engine.run import to_tensors
from toolchain.engine.tracing.aliases import Aliases
from toolchain.engine.tracing.aten import ATEN_RULES, IDENTITIES, RESHAPES, VIEWS
from toolchain.engine.tracing.builder import CannotLower, GraphBuilder, is_torch, portable_path, source_of
from toolchain.errors import OptionError, UnsupportedError, raise_collected
from toolchain.graph import WEIGHTED, DType, Graph, Op, TensorType, Value


def trace(model: nn.Module | ExportedProgram, example_inputs: Sequence[np.ndarray] | None = None) -> Graph:
    """The neutral graph of `model` in eval mode, at the shapes of `example_inputs` (an exported program has its own).

    Raises UnsupportedError for data-dependent control flow and, all at once, for ops outside the set, each with the
    user's module path and line; OptionError for weights that are NaN or infinite.
    """
    program = model if isinstance(model, ExportedProgram) else export(model, example_inputs or ())
    graph = fold_constants(lower(program))
    _check_weights_are_constant(graph)
    bad = [name for name, array in graph.constants.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    raise_collected(
        OptionError,
        "the model's weights are not finite:",
        [f"{name} holds NaN or infinity" for name in bad],
        hint="load a checkpoint of a training that converged",
    )
    return graph


def export(model: nn.Module, example_inputs: Sequence[np.ndarray]) -> ExportedProgram:
    """torch.export of `model` in eval mode; its training flags are put back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        logging.disable(logging.CRITICAL)  # torch logs graphs and tracebacks of what is told in one message below
        return torch.export.export(model, tuple(to_tensors(example_inputs)))
    except Exception as error:
        where = _user_frame(error)
        reason = str(error).strip().splitlines() or [type(error).__name__]
        if _is_data_dependent(error):
            raise UnsupportedError(
                f"data-dependent control flow cannot be exported: {reason[0]}",
                where=where,
                hint="compute both branches and choose with torch.where, or take the branch out of the model",
            ) from error
        shapes = [tuple(array.shape) for array in example_inputs]
        raise UnsupportedError(
            f"torch.export fails: {reason[0]}",
            where=where,
            hint=f"the model was given inputs of shape {shapes}; where these are wrong, give it others",
        ) from error
    finally:
        logging.disable(logging.NOTSET)
        for module, training in modes:
            module.training = training


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
    builder = GraphBuilder()
    inputs: list[Value] = []
    values: dict[fx.Node, Any] = {}
    outputs: list[str] = []
    findings: dict[str, None] = {}
    placed = _placeholders(program, builder)
    aliases = Aliases(program.graph)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            values[node] = placed.get(node.name) or _add_input(node, inputs, builder)
        elif node.op == "output":
            outputs = [values[n] for n in _flat_outputs(node, program)] if not findings else []
        elif node.op == "call_function":
            builder.source = source_of(node)
            try:
                values[node] = _lower_node(node, values, builder, aliases)
            except CannotLower as why:
                findings[f"{_op_name(node)}: {why} [{builder.source}]"] = None
                values[node] = None
    raise_collected(
        UnsupportedError,
        f"{len(findings)} op(s) of the model have no counterpart in the graph:",
        list(findings),
        hint="write them with supported ops (README, supported ops), or leave that part out of the deployed model",
    )
    return builder.finish(tuple(inputs), outputs)


def _placeholders(program: ExportedProgram, builder: GraphBuilder) -> dict[str, str]:
    """fx placeholder -> constant, parameters in shared memory stored once under the first name."""
    stored: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    placed = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT or spec.target is None:
            continue
        source = program.state_dict if spec.target in program.state_dict else program.constants
        tensor = source[spec.target].detach()
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if key not in stored or not tensor.numel():
            # a copy: the user's module may be trained on, and the graph stays what it was
            array = tensor.cpu().to(torch.float32, copy=True, memory_format=torch.contiguous_format).numpy()
            stored[key] = builder.constant(array, spec.target)
        placed[spec.arg.name] = stored[key]
    return placed


def _add_input(node: fx.Node, inputs: list[Value], builder: GraphBuilder) -> str:
    example = node.meta["val"]
    shape = tuple(int(size) for size in example.shape)
    if example.dtype != torch.float32:
        dtype = str(example.dtype).removeprefix("torch.")
        raise UnsupportedError(
            f"input {node.name} is {dtype}, and a graph takes float32",
            hint="give float32 example inputs, and convert outside the model what is not",
        )
    inputs.append(Value(node.name, TensorType(DType.FLOAT32, shape)))
    builder.shapes[node.name] = shape
    return node.name


def _flat_outputs(node: fx.Node, program: ExportedProgram) -> list[fx.Node]:
    wanted = {spec.arg.name for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"}
    return [item for item in node.args[0] if isinstance(item, fx.Node) and item.name in wanted]  # type: ignore[union-attr]


def _op_name(node: fx.Node) -> str:
    return getattr(node.target, "_opname", getattr(node.target, "__name__", str(node.target)))


def _lower_node(node: fx.Node, values: dict[fx.Node, Any], builder: GraphBuilder, aliases: Aliases) -> Any:
    name = _op_name(node)
    in_place = name.endswith("_") and not name.startswith("__")
    name = name.removesuffix("_") if in_place else name
    aliases.see(node, may_alias=name in VIEWS, in_place=in_place)
    silent = node.target is operator.getitem or name.startswith(("_assert", "sym_"))
    if not silent and name not in ATEN_RULES.keys() | IDENTITIES | RESHAPES:
        raise CannotLower("not in the op set")
    if any(values[n] is None for n in node.all_input_nodes):
        return None  # reported where it began
    args: Any = fx.node.map_arg(list(node.args), values.__getitem__)
    kwargs: Any = fx.node.map_arg(dict(node.kwargs), values.__getitem__)
    if silent:
        return _member(node, args) if node.target is operator.getitem else args[0] if args else None
    if name in IDENTITIES | RESHAPES:
        _check_stays_float(node)
    if name in IDENTITIES:
        result: Any = args[0]
    elif name in RESHAPES:
        result = builder.reshape(args[0], node.meta["val"].shape)
    else:
        result = _apply(ATEN_RULES[name], builder, args, kwargs)
    if in_place:
        values.update(dict.fromkeys(aliases.written(node), result))
    return result


def _member(node: fx.Node, args: Any) -> Any:
    """One of an op's several results; None for one that the graph does not compute and nobody reads."""
    results, index = args
    if index >= len(results) and node.users:
        raise CannotLower(f"only the first result of {_op_name(node.all_input_nodes[0])} is computed, no indices")
    return results[index] if index < len(results) else None


def _check_stays_float(node: fx.Node) -> None:
    dtype = getattr(node.meta.get("val"), "dtype", torch.float32)
    if not dtype.is_floating_point:
        raise CannotLower(f"makes {str(dtype).removeprefix('torch.')} of its input, and the graph computes in float32")


def _apply(rule: Any, builder: GraphBuilder, args: Any, kwargs: Any) -> Any:
    try:
        return rule(builder, *args, **kwargs)
    except TypeError as error:
        raise CannotLower(f"these arguments are not supported ({error})") from error


def _check_weights_are_constant(graph: Graph) -> None:
    layers = [node for node in graph.nodes if node.op in WEIGHTED or node.op is Op.BATCH_NORM]
    computed = [node for node in layers if not all(graph.is_constant(name) for name in node.inputs[1:])]
    raise_collected(
        UnsupportedError,
        "weights must be constant, but these are computed from the input:",
        [f"{node.op} {node.name} [{node.source}]" for node in computed],
    )


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
