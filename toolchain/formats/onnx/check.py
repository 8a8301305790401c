"""Whether an ONNX file holds what the graph asked for: types, scales, zero points, axes and every integer.

What is compared was read from the bytes. A finding is one line; a sound file has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

from toolchain.formats.onnx.gates import gate_orders
from toolchain.formats.onnx.kernels import transposed_kernels
from toolchain.formats.onnx.reader import Affine, affine_uses, element_dtype, parse_onnx, values_of
from toolchain.formats.onnx.scope import Tensor, held_values, store_params
from toolchain.graph import DType, Graph
from toolchain.quantization import AffineParams, QuantizedGraph, Reals


def check_onnx(content: bytes, model: Graph | QuantizedGraph, data: bytes | None = None) -> list[str]:
    """Everything in which the file, with `data` beside it, differs from `model`, one line each.

    Raises UnsupportedError where `content` is damaged or no ONNX file.
    """
    quantized = model if isinstance(model, QuantizedGraph) else QuantizedGraph(model, {})
    proto = parse_onnx(content, data)
    stored = stored_tensors(proto, quantized)
    findings = [*_check_ends(proto.graph, quantized), *_check_metadata(proto, stored)]
    findings.extend(_check_constants(proto.graph, quantized, stored))
    findings.extend(_check_params(proto, stored))
    findings.extend(_check_reals(proto.graph, quantized))
    return [*findings, *_check_leftovers(proto.graph, quantized)]


def stored_tensors(proto: ModelProto, model: QuantizedGraph) -> dict[str, Tensor]:
    """The file's tensor for each tensor of `model`, found from the file's element types and names."""
    elements = element_types(proto.graph)
    inner = {name: f"{name}/integer" for name in model.params if f"{name}/integer" in elements}
    kinds = {elements.get(inner.get(name, name)) for name in model.graph.activations if name in model.params}
    narrow = DType.UINT8 if DType.UINT8 in kinds else DType.INT8
    return store_params(model, narrow, inner, DType.UINT16 if DType.UINT16 in kinds else DType.INT16)


def element_types(graph: GraphProto) -> dict[str, DType | None]:
    """Element type of every tensor the file tells one of."""
    values = [*graph.input, *graph.value_info, *graph.output]
    found = {value.name: element_dtype(value.type.tensor_type.elem_type) for value in values}
    return found | {tensor.name: element_dtype(tensor.data_type) for tensor in graph.initializer}


def _check_ends(graph: GraphProto, model: QuantizedGraph) -> Iterator[str]:
    ends = (("inputs", graph.input, model.graph.input_names), ("outputs", graph.output, model.graph.outputs))
    for kind, values, wanted in ends:
        named = tuple(value.name for value in values)
        if named != tuple(dict.fromkeys(wanted)):
            yield f"{kind} are {list(named)}, not {list(wanted)}"


def _check_metadata(proto: ModelProto, stored: dict[str, Tensor]) -> Iterator[str]:
    keys = {entry.key for entry in proto.metadata_props}
    for value in (*proto.graph.input, *proto.graph.output):
        tensor = stored.get(value.name)
        if tensor is not None and tensor.params is not None and tensor.name == value.name:
            missing = {f"{value.name}/scale", f"{value.name}/zero_point"} - keys
            yield from (f"{key}: is missing from the metadata" for key in sorted(missing))


def _check_constants(graph: GraphProto, model: QuantizedGraph, stored: dict[str, Tensor]) -> Iterator[str]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    transposed, gates = transposed_kernels(model.graph, model.params), gate_orders(model.graph)
    for name in model.graph.constants:
        tensor = stored[name]
        wanted = held_values(model, name, tensor, transposed, gates)
        yield from _check_values(tensor.name, constants.get(tensor.name), wanted)


def read_constants(content: bytes, model: QuantizedGraph, data: bytes | None = None) -> dict[str, np.ndarray]:
    """The graph's constants as the file's bytes have them, in torch's layout. Raises UnsupportedError where `content`
    is damaged."""
    proto = parse_onnx(content, data)
    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    numbered = _Numbered(model.graph, model.params, model.corrections, model.float_nodes, model.reals)
    transposed, gates = transposed_kernels(model.graph, model.params), gate_orders(model.graph)
    found = {}
    for name, tensor in stored_tensors(proto, model).items():
        if name in model.graph.constants and tensor.name in held:
            values = values_of(held[tensor.name])
            places = held_values(numbered, name, replace(tensor, params=None), transposed, gates)
            whole = found[name] = np.zeros(places.size, values.dtype)
            whole[places.reshape(-1) - 1] = values.reshape(-1)
    return {name: whole.reshape(model.graph.constants[name].shape) for name, whole in found.items()}


class _Numbered(QuantizedGraph):
    """Constants that hold the numbers of their places, from 1 on, so that what a writer moves can be moved back."""

    def stored_values(self, name: str) -> np.ndarray:
        constant = self.graph.constants[name]
        return np.arange(1, constant.size + 1).reshape(constant.shape)


def _check_values(name: str, found: TensorProto | None, wanted: np.ndarray) -> Iterator[str]:
    if found is None:
        yield f"{name}: the constant is missing"
        return
    values = values_of(found)
    if values.dtype != wanted.dtype or values.shape != wanted.shape:
        yield f"{name}: is {values.dtype}{list(values.shape)}, not {wanted.dtype}{list(wanted.shape)}"
    elif not np.array_equal(values, wanted):
        yield f"{name}: {np.count_nonzero(values != wanted)} of {wanted.size} values differ"


def _check_reals(graph: GraphProto, model: QuantizedGraph) -> Iterator[str]:
    """Activations between in- and outputs, where the file tells their types, and in- and outputs themselves."""
    elements, ends = element_types(graph), {*model.graph.input_names, *model.graph.outputs}
    for name in model.graph.activations:
        wanted = model.graph.types[name].dtype
        if name in model.params or name not in elements:
            continue
        if wanted is DType.FLOAT32 and model.reals is Reals.FLOAT16 and name not in ends:
            wanted = DType.FLOAT16
        if elements[name] is not wanted:
            yield f"{name}: is {elements[name]}, not {wanted}"


def _check_params(proto: ModelProto, stored: dict[str, Tensor]) -> Iterator[str]:
    elements, uses = element_types(proto.graph), affine_uses(proto)
    for tensor in stored.values():
        if tensor.params is not None:
            if elements.get(tensor.name) is not tensor.params.dtype:
                yield f"{tensor.name}: is {elements.get(tensor.name) or 'missing'}, not {tensor.params.dtype}"
            for found in uses.get(tensor.name, ()):
                yield from _check_affine(tensor.name, found, tensor.params)
            if tensor.name not in uses:
                yield f"{tensor.name}: has no scale"


def _check_affine(name: str, found: Affine, wanted: AffineParams) -> Iterator[str]:
    scales, zero_points = wanted.scale.ravel().tolist(), wanted.zero_point.ravel().tolist()
    pairs = {
        "scale": (list(found[0]), scales),
        "zero_point": (list(found[1]), zero_points),
        "axis": (found[2], wanted.axis),
        "block": (found[3], wanted.block),
    }
    for key, (value, asked) in pairs.items():
        if value != asked:
            yield f"{name}: {key} is {value}, not {asked}"


def _check_leftovers(graph: GraphProto, model: QuantizedGraph) -> Iterator[str]:
    """Float constants of a quantized file that are neither scales, nor belong to a tensor left in float, nor are a
    number of a node's own formula."""
    if not model.has_integer_activations:
        return
    scales = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Mul")}
    # those of blocks are widened first
    scales |= {node.input[0] for node in graph.node if node.op_type == "Cast" and node.output[0] in scales}
    if model.float_nodes or DType.INT16 in {params.dtype for params in model.params.values()}:
        # int16 results are clamped before they are rounded, what a float layer reads is held apart by a Clip
        scales |= {name for node in graph.node if node.op_type == "Clip" for name in node.input[1:]}
    # in QDQ form bounds and the value of a pad are real
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    in_qdq_form = (n for n in graph.node if n.op_type in ("Clip", "Pad") and n.input[0] in dequantized)
    scales |= {name for node in in_qdq_form for name in node.input[1:]}
    unquantized = {name for name in model.graph.types if name not in model.params}
    for tensor in graph.initializer:
        dtype = element_dtype(tensor.data_type)
        owner, _, suffix = tensor.name.rpartition("/")
        is_number = owner in model.graph.producers and suffix != "value" and not tensor.dims
        is_number = is_number or owner in model.float_nodes
        if dtype is not None and dtype.is_float and tensor.name not in scales | unquantized and not is_number:
            yield f"{tensor.name}: a float constant that is no scale"
