"""Whether a TFLite file holds what the graph asked for: types, shapes, scales, zero points, axes, integers.

What is compared was read from the bytes, and brought back to torch's layout by what the operators that read a
constant do with it, not by what the writer did. A finding is one line; a sound file has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from toolchain.formats.artifact import SparseWeights, TensorFacts
from toolchain.formats.tflite.kernels import dilated, row_order, rows_of
from toolchain.formats.tflite.layout import Flattened, Layout, identity
from toolchain.formats.tflite.names import PRODUCT_SUFFIX
from toolchain.formats.tflite.parse import Operator, ParsedModel, parse
from toolchain.formats.tflite.reader import activation_layouts
from toolchain.formats.tflite.sparse_plan import SparsePlan, plan_sparse
from toolchain.graph import RECURRENT, DType, Graph, Op
from toolchain.quantization import AffineParams, QuantizedGraph, Reals

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_ROWS = re.compile(r"(.+)/rows_(\d+)_(\d+)(?:_\d+)?")


def check_tflite(
    content: bytes, model: Graph | QuantizedGraph, *, sparse: SparseWeights = SparseWeights.NEVER
) -> list[str]:
    """Everything in which the file differs from `model` and from what `sparse` asks of it, one line each.

    Raises OptionError where `content` is damaged or no TFLite file, UnsupportedError where it is beyond the
    toolchain.
    """
    quantized = model if isinstance(model, QuantizedGraph) else QuantizedGraph(model, {})
    file = _File.of(parse(content))
    return [
        *_check_ends(file, quantized),
        *_check_activations(file, quantized),
        *_check_constants(file, quantized),
        *_check_sparse(file, plan_sparse(quantized, sparse)),
        *_check_leftovers(file, quantized),
    ]


@dataclass(frozen=True)
class _File:
    model: ParsedModel
    by_name: Mapping[str, int]
    layouts: Mapping[str, Layout]

    @classmethod
    def of(cls, model: ParsedModel) -> _File:
        by_name = {facts.name: index for index, facts in enumerate(model.tensors)}
        return cls(model, by_name, activation_layouts(model))

    def find(self, name: str) -> TensorFacts | None:
        """The tensor that holds the graph's tensor `name`."""
        index = self.by_name.get(self.model.mapped.aliases.get(name, name))
        return None if index is None else self.model.tensors[index]

    def layout_at(self, index: int) -> Layout:
        facts = self.model.tensors[index]
        return self.layouts.get(facts.name) or identity(len(facts.shape))


def _check_ends(file: _File, model: QuantizedGraph) -> Iterator[str]:
    wanted = (
        ("inputs", file.model.inputs, model.graph.input_names),
        ("outputs", file.model.outputs, model.graph.outputs),
    )
    for kind, found, names in wanted:
        if [name for name, _ in found] != list(names):
            yield f"{kind} are {[name for name, _ in found]}, not {list(names)}"


def _check_activations(file: _File, model: QuantizedGraph) -> Iterator[str]:
    ends = {*model.graph.input_names, *model.graph.outputs}
    for name in model.graph.activations:
        facts, kind, params = file.find(name), model.graph.types[name], model.params.get(name)
        if facts is None or len(facts.shape) != kind.rank:
            yield f"{name}: {'the tensor is missing' if facts is None else f'is of rank {len(facts.shape)}'}"
            continue
        shape = file.layouts[name].shape(kind.shape)
        dtype = params.dtype if params else kind.dtype
        if dtype is DType.FLOAT32 and model.reals is Reals.FLOAT16 and name not in ends:
            dtype = DType.FLOAT16
        if (facts.dtype, facts.shape) != (dtype, shape):
            yield f"{name}: is {facts.dtype}{list(facts.shape)}, not {dtype}{list(shape)}"
        yield from _check_params(name, facts, params, None)


def _check_params(name: str, facts: TensorFacts, params: AffineParams | None, axis: int | None) -> Iterator[str]:
    if params is None:
        if facts.scale:
            yield f"{name}: has a scale, but is not quantized"
        return
    scale, zero_point = params.scale.reshape(-1), params.zero_point.reshape(-1)
    if facts.block != params.block:
        yield f"{name}: block size is {facts.block}, not {params.block}"
    elif not np.array_equal(np.asarray(facts.scale, np.float32), scale):
        yield f"{name}: scale is {list(facts.scale)[:4]}, not {scale.tolist()[:4]}"
    elif not np.array_equal(np.asarray(facts.zero_point, np.int64), zero_point):
        yield f"{name}: zero point is {list(facts.zero_point)[:4]}, not {zero_point.tolist()[:4]}"
    elif len(scale) > 1 and facts.axis != axis:
        yield f"{name}: channel axis is {facts.axis}, not {axis}"


def _check_constants(file: _File, model: QuantizedGraph) -> Iterator[str]:
    """Every constant of the graph wherever it is read; one read in two layouts is in the file twice."""
    missing = set(model.graph.constants)
    rows: dict[str, set[tuple[int, int]]] = {}
    for operator in file.model.operators:
        for position, index in enumerate(operator.inputs):
            name = None if index not in file.model.values else _constant_name(file, index, model)
            if found := _summed(file, index, model):
                yield from _check_sum(file, index, *found, model)
                missing -= set(found)
            elif name is not None:
                rows.setdefault(name, set()).add(_rows(file, index, model.graph.constants[name]))
                if sum(stop - start for start, stop in rows[name]) >= _length(model.graph.constants[name]):
                    missing.discard(name)
                yield from _check_constant(file, operator, position, name, model)
    # a batch norm that is left is written as its multiplier and offset
    written = {name for node in model.graph.nodes for name in node.inputs if node.op.value != "batch_norm"}
    yield from (f"{name}: the constant is missing" for name in sorted(missing & written))


def _check_sparse(file: _File, plan: SparsePlan) -> Iterator[str]:
    """Whether only what was to be stored without zeros is, and holds none."""
    found = {facts.name: index for index, facts in enumerate(file.model.tensors) if facts.is_sparse}
    yield from (f"{name}: is stored with its zeros" for name in sorted(plan.weights - set(found)))
    yield from (f"{name}: is stored without its zeros" for name in sorted(set(found) - plan.weights))
    for name, index in found.items():
        stored, nonzero = file.model.tensors[index].stored_values or 0, np.count_nonzero(file.model.values[index])
        if stored > nonzero:
            yield f"{name}: {stored - nonzero} of the {stored} values stored are zero"


def read_constants(content: bytes, model: QuantizedGraph) -> dict[str, np.ndarray]:
    """The graph's constants as the file's bytes have them, in torch's layout; where a file holds one several times, the
    last. Raises OptionError where `content` is damaged."""
    file = _File.of(parse(content))
    numbered = _Numbered(model.graph, model.params, model.corrections, model.float_nodes, model.reals)
    found: dict[str, np.ndarray] = {}
    for operator in file.model.operators:
        for position, index in enumerate(operator.inputs):
            if index not in file.model.values or (name := _constant_name(file, index, model)) is None:
                continue
            reader, place = _reader(file, operator, position)
            numbers, _ = _wanted(file, reader, index, name, numbered)
            layout = _constant_layout(file, reader, place, _result_layout(file, reader, name, model))
            held = layout.to_logical(file.model.values[index]).reshape(-1)
            places = numbers.reshape(-1)
            whole = found.setdefault(name, np.zeros(model.graph.constants[name].size, held.dtype))
            whole[places[places > 0] - 1] = held[places > 0]
    return {name: whole.reshape(model.graph.constants[name].shape) for name, whole in found.items()}


class _Numbered(QuantizedGraph):
    """Constants that hold the numbers of their places, from 1 on, so that what a writer moves can be moved back."""

    def stored_values(self, name: str) -> np.ndarray:
        constant = self.graph.constants[name]
        return np.arange(1, constant.size + 1).reshape(constant.shape)


def _constant_name(file: _File, index: int, model: QuantizedGraph) -> str | None:
    """The graph's name of a constant; its second copy carries a number, some of its rows theirs."""
    name = file.model.tensors[index].name
    if (found := _ROWS.fullmatch(name)) and found[1] in model.graph.constants:
        return found[1]
    if name in model.graph.constants:
        return name
    stem, _, number = name.rpartition("_")
    return stem if number.isdigit() and stem in model.graph.constants else None


def _summed(file: _File, index: int, model: QuantizedGraph) -> tuple[str, str] | None:
    """The two biases of a recurrent layer of which a constant holds some rows' sums."""
    found = _ROWS.fullmatch(file.model.tensors[index].name)
    return _bias_pairs(model.graph).get(found[1]) if found else None


def _bias_pairs(graph: Graph) -> dict[str, tuple[str, str]]:
    """The two biases of each recurrent layer by the name of their sum."""
    pairs = (node.inputs[3:5] for node in graph.nodes if node.op in RECURRENT)
    return {f"{bias}+{recurrent_bias}": (bias, recurrent_bias) for bias, recurrent_bias in pairs}


def _check_sum(file: _File, index: int, bias: str, recurrent_bias: str, model: QuantizedGraph) -> Iterator[str]:
    rows = slice(*_rows(file, index, model.graph.constants[bias]))
    one, other = (model.stored_values(name)[rows].astype(np.float32) for name in (bias, recurrent_bias))
    wanted, found = one + other, file.model.values[index]
    if found.dtype != wanted.dtype or not np.array_equal(found, wanted):
        yield f"{file.model.tensors[index].name}: is not the sum of {bias} and {recurrent_bias}"


def _rows(file: _File, index: int, constant: np.ndarray) -> tuple[int, int]:
    """Which part of a constant, along its first axis, a tensor of the file holds: a group of a transposed convolution
    has its own."""
    found = _ROWS.fullmatch(file.model.tensors[index].name)
    return (int(found[2]), int(found[3])) if found else (0, _length(constant))


def _length(constant: np.ndarray) -> int:
    return len(constant) if constant.ndim else 1


def _wanted(
    file: _File, operator: Operator, index: int, name: str, model: QuantizedGraph
) -> tuple[np.ndarray, AffineParams | None]:
    """What a tensor of the file must hold of the constant `name`, and its parameters."""
    params = model.params.get(name)
    wanted = model.stored_values(name)
    rows = _rows(file, index, wanted)
    if rows != (0, _length(wanted)):
        wanted, params = wanted[slice(*rows)], params and rows_of(params, slice(*rows))
    order = row_order(_result_layout(file, operator, name, model)) if operator.name == "FULLY_CONNECTED" else None
    if order is not None:
        wanted, params = wanted[order], params and rows_of(params, order)
    if operator.name == "TRANSPOSE_CONV" and wanted.ndim == 4:
        (dilation, *_) = [n["dilation"] for n in model.graph.consumers[name] if n.op is Op.CONV_TRANSPOSE2D]
        wanted = dilated(wanted, dilation)
    return wanted, params


def _check_constant(file: _File, operator: Operator, position: int, name: str, model: QuantizedGraph) -> Iterator[str]:
    index = operator.inputs[position]
    operator, position = _reader(file, operator, position)
    layout = _constant_layout(file, operator, position, _result_layout(file, operator, name, model))
    wanted, params = _wanted(file, operator, index, name, model)
    axis = layout.axis(params.axis) if params and params.axis is not None else None
    yield from _check_params(name, file.model.tensors[index], params, axis)
    found, dtype = file.model.values[index], file.model.tensors[index].dtype
    if dtype is not model.stored_dtype(name):
        yield f"{name}: is {dtype}, not {model.stored_dtype(name)}"
        return
    if found.dtype != wanted.dtype or found.size != wanted.size or not layout.fits(found.shape):
        yield f"{name}: is {found.dtype}{list(found.shape)}, not {wanted.dtype}{list(wanted.shape)}"
        return
    values = layout.to_logical(found).reshape(wanted.shape)
    if not np.array_equal(values, wanted):
        yield f"{name}: {np.count_nonzero(values != wanted)} of {wanted.size} values differ"


def _reader(file: _File, operator: Operator, position: int) -> tuple[Operator, int]:
    """What reads a constant, and as which input: through the DENSIFY of one stored without its zeros, and the
    DEQUANTIZE of one stored as float16 or integers."""
    while operator.name in ("DENSIFY", "DEQUANTIZE"):
        for reader in file.model.operators:
            if operator.outputs[0] in reader.inputs:
                operator, position = reader, reader.inputs.index(operator.outputs[0])
                break
        else:
            break
    return operator, position


def _result_layout(file: _File, operator: Operator, name: str, model: QuantizedGraph) -> Layout:
    """Of the operator's result; one that a permute renames has a layout for each of its names."""
    result = file.model.tensors[operator.outputs[0]]
    for node in model.graph.consumers[name]:
        found = file.find(node.output)
        if found is result or (found is not None and result.name == found.name + PRODUCT_SUFFIX):
            return file.layouts[node.output]
    return file.layout_at(operator.outputs[0])


def _constant_layout(file: _File, operator: Operator, position: int, result: Layout) -> Layout:
    """How the operator reads its constant, as a layout of the graph's."""
    shape = file.model.tensors[operator.inputs[position]].shape
    if operator.name.startswith("UNIDIRECTIONAL_SEQUENCE"):
        return identity(len(shape))
    if operator.name in ("CONV_2D", "TRANSPOSE_CONV") and position == 1:
        return Layout((0, 2, 3, 1))
    if operator.name == "DEPTHWISE_CONV_2D" and position == 1:
        return Layout((1, 2, 3, 0))
    if operator.name == "FULLY_CONNECTED" and position == 1:
        columns = file.layout_at(_unconverted(file, operator.inputs[0])).flattened
        return Layout((0, 1), columns and Flattened(1, columns.shape, columns.order))
    if len(shape) == result.rank:
        return result.fitted([shape[result.axis(axis)] for axis in range(result.rank)])
    return identity(len(shape))


def _unconverted(file: _File, index: int) -> int:
    """The tensor that another one is the QUANTIZE or DEQUANTIZE of: a conversion moves nothing."""
    made = {operator.outputs[0]: operator for operator in file.model.operators if operator.name in _CONVERSIONS}
    while index in made and file.model.tensors[index].name not in file.model.mapped.layouts:
        index = made[index].inputs[0]
    return index


def _check_leftovers(file: _File, model: QuantizedGraph) -> Iterator[str]:
    """Float tensors and conversions in a quantized file that belong neither to in- and outputs nor to a float node."""
    if not model.params:
        return
    ends = {index for _, index in (*file.model.inputs, *file.model.outputs)}
    expected = {file.model.mapped.aliases.get(name, name) for name in _island_tensors(model)} | _island_tensors(model)
    for index, facts in enumerate(file.model.tensors):
        if facts.dtype.is_float and index not in ends and not _belongs(facts.name, expected):
            yield f"{facts.name}: a float tensor inside the file"
    converted: Counter[int] = Counter()
    for operator in file.model.operators:
        if operator.name not in _CONVERSIONS or ends & {*operator.inputs, *operator.outputs}:
            continue
        source, result = (file.model.tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
        if source.dtype.is_float == result.dtype.is_float:
            continue  # another scale: a requantize
        integer = operator.outputs[0] if source.dtype.is_float else operator.inputs[0]
        converted[integer] += 1
        if not _belongs((source if source.dtype.is_float else result).name, expected):
            yield f"{result.name}: a {operator.name} inside the file"
    yield from (f"{file.model.tensors[index].name}: is converted {n} times" for index, n in converted.items() if n > 2)


def _island_tensors(model: QuantizedGraph) -> set[str]:
    """Tensors of the graph that are or go with float ones of the file: made by float nodes, or read by them."""
    read = {name for node in model.graph.nodes if node.output in model.float_nodes for name in node.inputs}
    unquantized = {name for name in model.graph.types if name not in model.params}
    return set(model.float_nodes) | read | unquantized | set(_bias_pairs(model.graph))


def _belongs(name: str, expected: set[str]) -> bool:
    """Whether a tensor of the file is one of `expected`, or an auxiliary of one (`tensor/suffix`)."""
    parts = name.split("/")
    stems = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return any(stem in expected or stem.rpartition("_")[0] in expected for stem in stems)
