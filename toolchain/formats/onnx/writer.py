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

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from google.protobuf.message import EncodeError
from onnx import ModelProto, StringStringEntryProto, ValueInfoProto, helper

from toolchain.errors import OptionError, UnsupportedError, raise_collected
from toolchain.formats.artifact import InOut
from toolchain.formats.onnx.dynamic_batch import follow_batch
from toolchain.formats.onnx.external import SUFFIX, DataFile
from toolchain.formats.onnx.half import convert_to_half
from toolchain.formats.onnx.lowerings import lower_node
from toolchain.formats.onnx.scope import ELEMENT_TYPES, Scope, Tensor, store_params
from toolchain.formats.onnx.wire import serialize
from toolchain.graph import BATCHES, DType, Graph, Op, with_batch
from toolchain.quantization import QuantizedGraph, Reals

PRODUCER = "edge-toolchain"
OPSETS = range(13, 22)
"""Opsets the lowerings are written for: 13 brought DequantizeLinear along an axis."""

WIDE_OPSET = 21

_RESIZE_OPSET = 18
"""From here on Resize takes the sizes of some axes only."""

LIMIT_BYTES = 2**31 - 1
"""What one protobuf message may hold."""


@dataclass(frozen=True)
class _Form:
    """How the file is to say it: the options of `write_onnx`."""

    opset: int
    activation_dtype: DType
    in_out: InOut
    qdq_only: bool


def write_onnx(
    model: Graph | QuantizedGraph,
    *,
    opset: int = 17,
    activation_dtype: DType = DType.UINT8,
    in_out: InOut = InOut.INTEGER,
    name: str = "model",
    dynamic_batch: bool = False,
    qdq_only: bool = False,
) -> bytes:
    """The bytes of an ONNX file: float for a Graph, QDQ for a QuantizedGraph.

    `activation_dtype` is int8, or uint8, where integers and zero points are stored 128 higher; weights are int8 in
    both. int16 activations and int4 weights raise `opset` to 21. Raises OptionError for an opset or a dtype that is not
    supported, UnsupportedError for what ONNX cannot hold.

    With `dynamic_batch` axis 0 of every in- and output is the symbol `batch`; a resize raises `opset` to 18 then. With
    `qdq_only` every op on integers stands between DequantizeLinear and QuantizeLinear, as compilers of NPUs read them:
    the same arithmetic to a step, some of which onnxruntime's CPU then computes in float; int16 activations are stored
    as uint16, 32768 higher.
    """
    quantized = model if isinstance(model, QuantizedGraph) else QuantizedGraph(model, {})
    form = _Form(opset, activation_dtype, in_out, qdq_only)
    _check_options(opset, activation_dtype)
    _check_dtypes(quantized)
    total = _constant_bytes(quantized)
    if total >= LIMIT_BYTES:
        raise _too_large(total)
    return _serialize(*_shaped(quantized, form, name, dynamic_batch))


def write_onnx_files(
    model: Graph | QuantizedGraph,
    file: str,
    *,
    opset: int = 17,
    activation_dtype: DType = DType.UINT8,
    in_out: InOut = InOut.INTEGER,
    dynamic_batch: bool = False,
    qdq_only: bool = False,
) -> dict[str, bytes]:
    """As `write_onnx`, under the name `file`; of a model that one file cannot hold, `file` and `file.data`, which must
    lie in one folder."""
    quantized = model if isinstance(model, QuantizedGraph) else QuantizedGraph(model, {})
    if _constant_bytes(quantized) < LIMIT_BYTES:
        options = {"opset": opset, "activation_dtype": activation_dtype, "in_out": in_out, "qdq_only": qdq_only}
        return {file: write_onnx(model, **options, dynamic_batch=dynamic_batch)}  # type: ignore[arg-type]
    _check_options(opset, activation_dtype)
    _check_dtypes(quantized)
    outside = DataFile(file + SUFFIX)
    proto, large = _shaped(quantized, _Form(opset, activation_dtype, in_out, qdq_only), "model", dynamic_batch)
    for tensor in proto.graph.initializer:
        if tensor.name in large:
            outside.add(tensor, large[tensor.name])
    content = _serialize(proto, {})
    return {file: content, outside.name: outside.content()}


def _shaped(
    quantized: QuantizedGraph, form: _Form, name: str, dynamic_batch: bool
) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """As `_proto`, for the traced batch or for any."""
    if not dynamic_batch:
        return _proto(quantized, form, name)
    if any(node.op is Op.RESIZE for node in quantized.graph.nodes):
        form = replace(form, opset=max(form.opset, _RESIZE_OPSET))
    models = (replace(quantized, graph=with_batch(quantized.graph, batch)) for batch in BATCHES)
    first, second = (_proto(model, form, name) for model in models)
    follow_batch(first, second)
    return first


def _proto(quantized: QuantizedGraph, form: _Form, name: str) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """The model, and the values of the large constants that it only names."""
    wide = DType.UINT16 if form.qdq_only else DType.INT16
    stored = store_params(quantized, form.activation_dtype, _renamed(quantized, form.in_out), wide)
    written = replace(quantized, reals=Reals.FLOAT32) if quantized.reals is Reals.FLOAT16 else quantized
    opset = max(form.opset, _lowest_opset(quantized))
    version = helper.make_opsetid("", opset)
    proto = ModelProto(opset_import=[version], ir_version=helper.find_min_ir_version_for([version]))
    proto.producer_name, proto.graph.name = PRODUCER, name
    scope = Scope(proto.graph, quantized.graph, stored, written, opset, quantized.float_nodes, form.qdq_only)
    _write_inputs(scope)
    for node in quantized.graph.nodes:
        lower_node(scope, node)
    _write_outputs(scope)
    _declare_tensors(scope)
    proto.metadata_props.extend(_metadata(scope))
    if quantized.reals is Reals.FLOAT16:
        convert_to_half(proto, scope.large)
    return proto, scope.large


def _lowest_opset(model: QuantizedGraph) -> int:
    """int16 activations and int4 weights came with opset 21."""
    wide = {params.dtype for params in model.params.values()} & {DType.INT16, DType.INT4}
    return WIDE_OPSET if wide else OPSETS[0]


def _check_options(opset: int, activation_dtype: DType) -> None:
    if opset not in OPSETS:
        raise OptionError(f"ONNX opset {opset} is not supported", hint=f"choose {OPSETS[0]} to {OPSETS[-1]}")
    if activation_dtype not in (DType.INT8, DType.UINT8):
        raise OptionError(f"{activation_dtype} activations are not supported", hint="choose int8 or uint8")


def _check_dtypes(model: QuantizedGraph) -> None:
    known = (DType.INT4, DType.INT8, DType.INT16, DType.INT32, DType.INT64)
    wrong = [f"{n}: {p.dtype}" for n, p in model.params.items() if p.dtype not in known]
    raise_collected(
        UnsupportedError, "tensors of a type the ONNX writer does not know:", wrong, hint="quantize to int8"
    )


def _constant_bytes(model: QuantizedGraph) -> int:
    return sum(model.stored_dtype(name).stored_bytes(array.size) for name, array in model.graph.constants.items())


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


def _serialize(model: ModelProto, large: Mapping[str, np.ndarray]) -> bytes:
    try:
        content = serialize(model, large, LIMIT_BYTES)
    except (EncodeError, ValueError) as error:
        raise UnsupportedError(f"the ONNX file cannot be written: {error}") from error
    if isinstance(content, int):
        raise _too_large(content)
    return content
