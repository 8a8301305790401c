"""Read an ONNX file back: op counts, tensors, scales and zero points as its bytes have them.

Nothing is executed and nothing outside `content` is opened. The scale and zero point of an integer tensor are
those of the QuantizeLinear that makes it, the DequantizeLinears that read it and the file's metadata; all
must be the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from math import prod

import numpy as np
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from toolchain.errors import UnsupportedError, raise_collected
from toolchain.formats.artifact import ArtifactFacts, OperatorFacts, TensorFacts
from toolchain.formats.onnx.external import take_inside
from toolchain.graph import DType

Affine = tuple[tuple[float, ...], tuple[int, ...], int | None, int | None]
"""Scales, zero points, channel axis and block size, as TensorFacts has them."""


def read_onnx(content: bytes, data: bytes | None = None) -> ArtifactFacts:
    """What the file holds; `data` are the bytes of the file beside it, where it has one. Raises UnsupportedError
    where `content` is damaged or no ONNX file."""
    model = parse_onnx(content, data)
    tensors = {name: _value_facts(name, value) for name, value in _values(model.graph).items()}
    tensors |= {tensor.name: _constant_facts(tensor) for tensor in model.graph.initializer}
    for name, found in affine_uses(model).items():
        if name in tensors:
            scale, zero_point, axis, block = found[0]
            tensors[name] = replace(tensors[name], scale=scale, zero_point=zero_point, axis=axis, block=block)
    ops = Counter(node.op_type for node in model.graph.node)
    inputs = tuple(value.name for value in model.graph.input)
    outputs = tuple(value.name for value in model.graph.output)
    operators = tuple(OperatorFacts(n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node)
    return ArtifactFacts("onnx", dict(sorted(ops.items())), tensors, inputs, outputs, len(content), operators)


def parse_onnx(content: bytes, data: bytes | None = None) -> ModelProto:
    """The file as protobuf, with the constants that lie in `data`. Raises UnsupportedError where it is damaged or no
    ONNX file."""
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, ValueError) as error:
        raise _unreadable(f"{len(content)} bytes that are no ONNX file ({error})") from error
    graph = model.graph
    if not graph.output or not (graph.node or graph.initializer or graph.input) or not model.opset_import:
        raise _unreadable(f"{len(content)} bytes without a complete graph")
    # protobuf gives text that is not UTF-8 as bytes
    if not all(isinstance(text, str) for text in _texts(model)):
        raise _unreadable("names that are no text")
    if data is not None:
        take_inside(model, data)
    wrong = [tensor.name for tensor in graph.initializer if not _is_complete(tensor)]
    raise_collected(UnsupportedError, "the ONNX file is damaged; constants of a wrong type or size:", wrong)
    return model


def _unreadable(why: str) -> UnsupportedError:
    return UnsupportedError(f"the ONNX file cannot be read: {why}", hint="export the model again")


def _texts(model: ModelProto) -> Iterator[str]:
    graph = model.graph
    for named in (*graph.initializer, *graph.input, *graph.value_info, *graph.output):
        yield named.name
    for node in graph.node:
        yield from (node.op_type, node.name, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for entry in model.metadata_props:
        yield from (entry.key, entry.value)


def _is_complete(tensor: TensorProto) -> bool:
    dtype = element_dtype(tensor.data_type)
    if dtype is None or tensor.data_location == TensorProto.EXTERNAL:
        return False
    if tensor.HasField("raw_data"):
        return bool(len(tensor.raw_data) == dtype.stored_bytes(prod(tensor.dims)))
    try:
        return bool(numpy_helper.to_array(tensor).size == prod(tensor.dims))
    except (ValueError, TypeError):
        return False


def element_dtype(element: int) -> DType | None:
    """The element type that ONNX numbers `element`, if the graph knows it."""
    try:
        return DType(helper.tensor_dtype_to_np_dtype(element).name)
    except (KeyError, ValueError):
        return None


def values_of(tensor: TensorProto) -> np.ndarray:
    """The values of an initializer; int4 as int8."""
    values = numpy_helper.to_array(tensor)
    return values.astype(np.int8) if tensor.data_type == TensorProto.INT4 else values


def _values(graph: GraphProto) -> dict[str, ValueInfoProto]:
    return {value.name: value for values in (graph.input, graph.value_info, graph.output) for value in values}


def _value_facts(name: str, value: ValueInfoProto) -> TensorFacts:
    dtype = element_dtype(value.type.tensor_type.elem_type)
    if dtype is None:
        raise _unreadable(f"tensor {name!r} is of a type the toolchain does not know")
    dims = value.type.tensor_type.shape.dim
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
    return TensorFacts(name, dtype, shape, is_constant=False)


def _constant_facts(tensor: TensorProto) -> TensorFacts:
    dtype = element_dtype(tensor.data_type)
    assert dtype is not None
    shape = tuple(tensor.dims)
    return TensorFacts(tensor.name, dtype, shape, is_constant=True, bytes=dtype.stored_bytes(prod(shape)))


def affine_uses(model: ModelProto) -> dict[str, list[Affine]]:
    """Every different parameter that an integer tensor is made, read or described with."""
    uses: dict[str, list[Affine]] = {}
    found_in = (_converted(model.graph), _computed(model.graph), scaled_weights(model.graph), _described(model))
    for name, found in chain.from_iterable(found_in):
        known = uses.setdefault(name, [])
        if found not in known:
            known.append(found)
    return uses


def _converted(graph: GraphProto) -> Iterator[tuple[str, Affine]]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) >= 2 and node.output:
            tensor = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
            scale = constants.get(node.input[1])
            zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
            if scale is not None:
                yield tensor, _affine(scale, zero_point, _axis(node), _block(node))


def _computed(graph: GraphProto) -> Iterator[tuple[str, Affine]]:
    """From ops that compute on integers, as other exporters write them: scale and zero point follow each operand, those
    of the result come after all."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        operands, last = _SCALED_OPERANDS.get(node.op_type, ((), 0))
        ends = [(node.input[place], place + 1) for place in operands if place < len(node.input)]
        for name, at in (*ends, *((name, last) for name in node.output[:1])):
            scale, zero_point = (constants.get(name) for name in (*node.input[at : at + 2], "", "")[:2])
            if scale is not None and operands:
                yield name, _affine(scale, zero_point, _channel_axis(node))


_SCALED_OPERANDS = {
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), ((0, 3), 6)),
    "QGemm": ((0, 3), 7),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), ((0,), 3)),
    **dict.fromkeys(("QLinearAveragePool", "QLinearGlobalAveragePool"), ((0,), 3)),
}
"""Places of the operands that a scale follows, and of the result's scale."""


def _channel_axis(node: NodeProto) -> int:
    """The output channels of the weight."""
    if node.op_type == "QGemm":
        return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
    return 0 if node.op_type == "QLinearConv" else 1


def scaled_weights(graph: GraphProto) -> Iterator[tuple[str, Affine]]:
    """Of integer weights whose scale a Mul tells: of the weight itself as float, or of the sums of its products with
    activations quantized as they come; and of those transposed or widened before a DequantizeLinear reads them."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    read: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            read.setdefault(name, []).append(node)
    multiplied = {node.output[0]: node for node in graph.node if node.op_type == "Mul"}
    widened = {node.output[0]: str(node.input[0]) for node in graph.node if node.op_type == "Cast"}
    for tensor in graph.initializer:
        if tensor.data_type in (TensorProto.INT8, TensorProto.INT4):
            for node, is_transposed in _weight_readers(tensor.name, read):
                name = _scale_name(node, read, multiplied, constants)
                scale = constants.get(widened.get(name, name))
                if scale is not None and _block(node):
                    yield tensor.name, _block_affine(scale, _axis(node), _block(node), is_transposed)
                elif scale is not None:
                    axis = 0 if is_transposed or not scale.dims else int(np.argmax(scale.dims))
                    if node.op_type == "DequantizeLinear" and not is_transposed:
                        axis = _axis(node)
                    yield tensor.name, _affine(scale, None, axis)


def _weight_readers(name: str, read: dict[str, list[NodeProto]]) -> Iterator[tuple[NodeProto, bool]]:
    for node in read.get(name, ()):
        if node.op_type == "Transpose":
            yield from ((reader, True) for reader in read.get(node.output[0], ()))
        elif node.op_type == "Cast":
            yield node, False
            yield from ((reader, False) for reader in read.get(node.output[0], ()) if reader.op_type == _WIDENED_FOR)


_WIDENED_FOR = "DequantizeLinear"


def _scale_name(
    node: NodeProto,
    read: dict[str, list[NodeProto]],
    multiplied: dict[str, NodeProto],
    constants: dict[str, TensorProto],
) -> str:
    """Name of the scale of the weight that `node` reads, or nothing."""
    if node.op_type == "DequantizeLinear":
        return str(node.input[1])
    result = node.output[0]
    if node.op_type == "MatMulInteger":
        result = next((cast.output[0] for cast in read.get(result, ()) if cast.op_type == "Cast"), "")
    for factor in read.get(result, ()):
        if factor.op_type == "Mul":
            (other,) = (name for name in factor.input if name != result)
            steps = multiplied[other].input if other in multiplied else [other]
            return next((str(name) for name in steps if name in constants), "")
    return ""


def _described(model: ModelProto) -> Iterator[tuple[str, Affine]]:
    """From the metadata, which holds `name/scale` and `name/zero_point`."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    for key, text in entries.items():
        name, _, kind = key.rpartition("/")
        if kind == "scale" and f"{name}/zero_point" in entries:
            try:
                yield name, ((float(text),), (int(entries[f"{name}/zero_point"]),), None, None)
            except ValueError as error:
                raise _unreadable(f"its metadata give {name!r} no scale: {error}") from error


def _axis(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def _block(node: NodeProto) -> int:
    """Of a DequantizeLinear, how many neighbours along its axis share a scale; 0 where all do."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "block_size"), 0)


def _block_affine(scale: TensorProto, axis: int, block: int, is_transposed: bool) -> Affine:
    """Of a matrix whose blocks run along `axis`, or of one transposed before that: its channels are the other axis."""
    values = values_of(scale)
    if values.dtype.kind != "f" or values.ndim != 2 or axis % 2 not in (0, 1):
        raise _unreadable(f"{scale.name!r} holds no scales of a matrix in blocks")
    by_channel = values if axis % 2 == 1 else values.T
    found = tuple(by_channel.astype(np.float32).ravel().tolist())
    return found, (0,) * len(found), (1 - axis % 2) ^ int(is_transposed), block


def _affine(scale: TensorProto, zero_point: TensorProto | None, axis: int, block: int = 0) -> Affine:
    if block and scale.dims:
        return _block_affine(scale, axis, block, is_transposed=False)
    values = values_of(scale)
    zeros = np.zeros(values.shape, np.int32) if zero_point is None else values_of(zero_point)
    if values.dtype.kind != "f" or zeros.dtype.kind not in "iu":
        raise _unreadable(f"{scale.name!r} is no scale, or its zero point no integer")
    return tuple(values.ravel().tolist()), tuple(zeros.ravel().tolist()), axis if scale.dims else None, None
