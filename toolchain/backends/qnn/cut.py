"""An ONNX file cut between its ops, so that each is judged alone: every integer tensor that a QuantizeLinear makes
becomes an output, and what reads it reads an input instead,

    q1 -> op a -> q2 -> op b -> q3    becomes    q1 -> op a -> q2,   q2/given -> op b -> q3

A deviation of one op then reaches no other. A group of ops in float between two integer tensors stays whole. Kernels
of depthwise 1x1 convolutions are written as 3x3 with zeros around, which is the same arithmetic: alone, the compiler
for old SoCs has no memory for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper, shape_inference

from toolchain.errors import UnsupportedError
from toolchain.formats.onnx.reader import parse_onnx

_INTEGERS = (TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16)


@dataclass(frozen=True)
class Cut:
    """`whole` is the file with all of `tensors` as outputs; `parts` the one that is cut at them. `given` maps inputs of
    `parts` to the tensors of `whole` whose values they take."""

    whole: bytes
    parts: bytes
    tensors: tuple[str, ...]
    given: dict[str, str]


def cut_file(content: bytes) -> Cut:
    """Cut a file at its integer tensors. Raises UnsupportedError where it is damaged."""
    proto = parse_onnx(content)
    values = _described(proto)
    ends = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    made = [node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    read = {name for node in proto.graph.node for name in node.input}
    inner = [name for name in made if name in values and name not in ends]
    ends_made = [name for name in made if name in ends]
    whole = ModelProto()
    whole.CopyFrom(proto)
    whole.graph.output.extend(values[name] for name in inner)
    given = {_free(f"{name}/given", read | set(made)): name for name in made if name in values and name in read}
    whole_bytes = whole.SerializeToString()
    _read_given(whole, {name: port for port, name in given.items()}, values)
    _widen_pointwise(whole)
    return Cut(whole_bytes, whole.SerializeToString(), (*inner, *ends_made), given)


def _widen_pointwise(proto: ModelProto) -> None:
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    makers = {node.output[0]: node for node in proto.graph.node}
    for node in proto.graph.node:
        options = {attribute.name: attribute for attribute in node.attribute}
        maker = makers.get(node.input[1]) if node.op_type == "Conv" else None
        if maker is None or options["group"].i == 1 or list(options["kernel_shape"].ints) != [1, 1]:
            continue
        tensor = constants.get(maker.input[0])
        if tensor is not None and list(tensor.dims[1:]) == [1, 1, 1]:
            wide = np.pad(numpy_helper.to_array(tensor), ((0, 0), (0, 0), (1, 1), (1, 1)))
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
        if tensor is not None and list(tensor.dims[1:]) == [1, 3, 3]:  # or another reader has widened it
            del options["kernel_shape"].ints[:]
            options["kernel_shape"].ints.extend([3, 3])
            pads = [pad + 1 for pad in options["pads"].ints]
            del options["pads"].ints[:]
            options["pads"].ints.extend(pads)


def _described(proto: ModelProto) -> dict[str, ValueInfoProto]:
    """Type and shape of every integer activation."""
    try:
        inferred = shape_inference.infer_shapes(proto, strict_mode=False).graph
    except (ValueError, RuntimeError) as error:
        raise UnsupportedError(f"shapes of the ONNX file cannot be inferred: {error}") from error
    found = {value.name: value for value in (*inferred.value_info, *proto.graph.input, *proto.graph.output)}
    return {name: value for name, value in found.items() if _is_fixed_integer(value)}


def _is_fixed_integer(value: ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return tensor.elem_type in _INTEGERS and tensor.HasField("shape") and all(_sizes(value))


def _sizes(value: ValueInfoProto) -> Iterator[bool]:
    return (size.HasField("dim_value") for size in value.type.tensor_type.shape.dim)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _read_given(proto: ModelProto, ports: dict[str, str], values: dict[str, ValueInfoProto]) -> None:
    """Let every reader of a tensor in `ports` read its port."""
    for node in proto.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = ports.get(name, name)
    for name, port in ports.items():
        value = proto.graph.input.add()
        value.CopyFrom(values[name])
        value.name = port
