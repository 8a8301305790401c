"""Write a graph as an ONNX file, float or QDQ int8.

A float graph becomes the plain ops. A quantized graph keeps its integers: int8 weights and int32 biases are
integer initializers behind a DequantizeLinear, and no float initializer is left but scales. Tensors carry the
graph's names: integer in- and outputs are the integer tensors themselves; of float ones `name` is the float
tensor, `name/integer` the integer one. The same input gives the same bytes: no time, version or path is
written.

Scale and zero point of integer in- and outputs are also in the file's metadata, under `name/scale` and
`name/zero_point`, where a program that has nothing but onnxruntime finds them.
"""

from __future__ import annotations

from google.protobuf.message import EncodeError
from onnx import ModelProto, StringStringEntryProto, ValueInfoProto, helper

from toolchain.errors import OptionError, UnsupportedError, raise_collected
from toolchain.formats.artifact import InOut
from toolchain.formats.onnx.lowering import lower_node
from toolchain.formats.onnx.scope import ELEMENT_TYPES, Scope, Tensor, store_params
from toolchain.graph import DType, Graph
from toolchain.quantization import QuantizedGraph

PRODUCER = "edge-toolchain"
OPSETS = range(13, 22)
"""Opsets the lowerings are written for: 13 brought DequantizeLinear along an axis."""

LIMIT_BYTES = 2**31 - 1
"""What one protobuf message may hold."""


def write_onnx(
    model: Graph | QuantizedGraph,
    *,
    opset: int = 17,
    activation_dtype: DType = DType.UINT8,
    in_out: InOut = InOut.INTEGER,
    name: str = "model",
) -> bytes:
    """The bytes of an ONNX file: float for a Graph, QDQ for a QuantizedGraph.

    `activation_dtype` is int8, or uint8, where integers and zero points are stored 128 higher; weights are
    int8 in both. Raises OptionError for an opset or a dtype that is not supported, UnsupportedError for what
    ONNX cannot hold.
    """
    quantized = model if isinstance(model, QuantizedGraph) else QuantizedGraph(model, {})
    _check_options(opset, activation_dtype)
    _check_dtypes(quantized)
    _check_size(quantized)
    stored = store_params(quantized, activation_dtype, _renamed(quantized, in_out))
    version = helper.make_opsetid("", opset)
    proto = ModelProto(opset_import=[version], ir_version=helper.find_min_ir_version_for([version]))
    proto.producer_name, proto.graph.name = PRODUCER, name
    scope = Scope(proto.graph, quantized.graph, stored, quantized.integers, opset)
    _write_inputs(scope)
    for node in quantized.graph.nodes:
        lower_node(scope, node)
    _write_outputs(scope)
    _declare_tensors(scope)
    proto.metadata_props.extend(_metadata(scope))
    return _serialize(proto)


def _check_options(opset: int, activation_dtype: DType) -> None:
    if opset not in OPSETS:
        raise OptionError(f"ONNX opset {opset} is not supported", hint=f"choose {OPSETS[0]} to {OPSETS[-1]}")
    if activation_dtype not in (DType.INT8, DType.UINT8):
        raise OptionError(f"{activation_dtype} activations are not supported", hint="choose int8 or uint8")


def _check_dtypes(model: QuantizedGraph) -> None:
    wrong = [f"{n}: {p.dtype}" for n, p in model.params.items() if p.dtype not in (DType.INT8, DType.INT32)]
    raise_collected(
        UnsupportedError, "tensors of a type the ONNX writer does not know:", wrong, hint="quantize to int8"
    )


def _check_size(model: QuantizedGraph) -> None:
    total = 0
    for name, array in model.graph.constants.items():
        total += array.size * (model.params[name].dtype if name in model.params else DType.of(array)).bytes
    if total >= LIMIT_BYTES:
        raise _too_large(total)


def _too_large(total: int) -> UnsupportedError:
    what = f"an ONNX file holds at most 2 GiB, but the constants of this model take {total / 2**30:.2f} GiB"
    return UnsupportedError(what, hint="quantize or prune the model, or cut it into several files")


def _renamed(model: QuantizedGraph, in_out: InOut) -> dict[str, str]:
    """Integer tensors that leave their name to the float in- or output beside them."""
    if in_out is InOut.INTEGER:
        return {}
    ends = (*model.graph.input_names, *model.graph.outputs)
    return {name: f"{name}/integer" for name in ends if name in model.params}


def _write_inputs(scope: Scope) -> None:
    for name in scope.graph.input_names:
        tensor = scope.tensor(name)
        if tensor.name != name:
            scope.quantize(name, tensor)


def _write_outputs(scope: Scope) -> None:
    for name in dict.fromkeys(scope.graph.outputs):
        tensor = scope.tensor(name)
        if tensor.name != name and name not in scope.graph.input_names:
            scope.dequantize(tensor, name)


def _declare_tensors(scope: Scope) -> None:
    """Element type and shape of the graph's activations, as in- and outputs or between them."""
    graph = scope.graph
    ends = {*graph.input_names, *graph.outputs}
    inner = [name for name in graph.activations if scope.stored[name].name not in ends]
    scope.proto.input.extend(_value_proto(scope, name) for name in graph.input_names)
    # a tensor that is two outputs of the graph is one of the file
    scope.proto.output.extend(_value_proto(scope, name) for name in dict.fromkeys(graph.outputs))
    scope.proto.value_info.extend(_value_proto(scope, name, scope.stored[name]) for name in inner)


def _value_proto(scope: Scope, name: str, tensor: Tensor | None = None) -> ValueInfoProto:
    """Name, element type and shape of `tensor`, by default of what the file has as `name`."""
    tensor = tensor or (scope.stored[name] if scope.stored[name].name == name else Tensor(name))
    dtype = tensor.params.dtype if tensor.params is not None else scope.graph.types[name].dtype
    return helper.make_tensor_value_info(tensor.name, ELEMENT_TYPES[dtype], scope.graph.types[name].shape)


def _metadata(scope: Scope) -> list[StringStringEntryProto]:
    """Scale and zero point of integer in- and outputs, and of integers that no node of the file converts."""
    ends = {*scope.graph.input_names, *scope.graph.outputs}
    entries: dict[str, str] = {}
    for tensor in scope.stored.values():
        if tensor.params is None or tensor.params.axis is not None:
            continue
        if tensor.name in ends or not scope.is_converted(tensor):
            entries[f"{tensor.name}/scale"] = repr(float(tensor.params.scale))
            entries[f"{tensor.name}/zero_point"] = str(int(tensor.params.zero_point))
    return [StringStringEntryProto(key=key, value=value) for key, value in entries.items()]


def _serialize(model: ModelProto) -> bytes:
    size = model.ByteSize()
    if size >= LIMIT_BYTES:
        raise _too_large(size)
    try:
        content: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise UnsupportedError(f"the ONNX file cannot be written: {error}") from error
    return content
