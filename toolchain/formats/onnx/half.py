"""A float32 ONNX graph as one of float16 throughout: constants, activations and arithmetic.

In- and outputs stay float32, with one Cast each, so that a program that runs the one file runs the other. Where a
runtime has no float16 kernel for an op, it computes that op in float32 by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from toolchain.errors import UnsupportedError, raise_collected
from toolchain.quantization import half

SUFFIX = "/half"
"""What is added to the name of an in- or output for the float16 tensor beside it."""

_FLOAT_INPUTS = {"Resize": (1, 2)}
"""Inputs that must be float32 whatever the op computes in."""


def convert_to_half(proto: ModelProto, large: dict[str, np.ndarray]) -> None:
    """Change `proto`, and the values of its `large` constants, in place.

    Raises UnsupportedError naming the constants that float16 cannot hold.
    """
    graph = proto.graph
    kept = {name for node in graph.node for name in _float_inputs(node)}
    raise_collected(UnsupportedError, "float16 cannot hold these constants:", _convert_constants(graph, kept, large))
    for node in graph.node:
        _convert_attributes(node)
    inputs = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    outputs = [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    _rename(graph, {*inputs, *outputs})
    entering = [_cast(name, name + SUFFIX, TensorProto.FLOAT16) for name in inputs]
    leaving = [_cast(name + SUFFIX, name, TensorProto.FLOAT) for name in outputs if name not in inputs]
    nodes = [*entering, *graph.node, *leaving]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16


def _float_inputs(node: NodeProto) -> Iterator[str]:
    yield from (node.input[at] for at in _FLOAT_INPUTS.get(node.op_type, ()) if at < len(node.input))


def _convert_constants(graph: GraphProto, kept: set[str], large: dict[str, np.ndarray]) -> list[str]:
    findings = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            try:
                if tensor.name in large:
                    large[tensor.name] = half(large[tensor.name]).astype(np.dtype("<f2"), copy=False)
                    tensor.data_type = TensorProto.FLOAT16
                else:
                    _convert(tensor)
            except ValueError as error:
                findings.append(f"{tensor.name}: {error}")
    return findings


def _convert(tensor: TensorProto) -> None:
    values = half(numpy_helper.to_array(tensor))
    tensor.data_type = TensorProto.FLOAT16
    del tensor.float_data[:]
    tensor.raw_data = values.astype(np.dtype("<f2")).tobytes()


def _convert_attributes(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            _convert(attribute.t)
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16


def _rename(graph: GraphProto, ends: set[str]) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name in ends:
                    names[at] = name + SUFFIX


def _cast(source: str, result: str, element: int) -> NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}/Cast", to=element)
