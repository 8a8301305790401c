"""Shape facet: the type of an op's results from the types of its inputs.

Windows follow `out = floor((in + before + after - dilation * (kernel - 1) - 1) / stride) + 1`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import TypeAlias

import numpy as np

from toolchain.graph.node import Node, unsupported
from toolchain.graph.ops import Op
from toolchain.graph.types import DType, Shape, TensorType, Value

ShapeRule: TypeAlias = Callable[[Node, list[TensorType]], Shape]


def infer_types(
    inputs: Iterable[Value], constants: Mapping[str, np.ndarray], nodes: Iterable[Node]
) -> dict[str, TensorType]:
    """Type of every tensor of a graph. Raises UnsupportedError that names the node whose inputs do not fit."""
    types = {value.name: value.type for value in inputs}
    types |= {name: TensorType(DType.of(array), array.shape) for name, array in constants.items()}
    for node in nodes:
        given = [types[name] for name in node.inputs]
        try:
            shape = SHAPE_RULES[node.op](node, given)
        except (ValueError, IndexError) as error:
            raise unsupported(node, f"inputs of shape {[t.shape for t in given]} do not fit: {error}") from error
        types[node.output] = TensorType(given[0].dtype, shape)
    return types


def window_extent(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Number of window positions along one axis. Raises ValueError where the window is larger than the axis."""
    extent = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
    if extent < 1:
        raise ValueError(f"a window of {kernel} (dilation {dilation}) is larger than the axis of {size}")
    return extent


def _window(node: Node, size: Shape, kernel: Shape, dilation: Shape = (1, 1)) -> Shape:
    top, left, bottom, right = node["padding"]
    return (
        window_extent(size[0], kernel[0], node["stride"][0], top, bottom, dilation[0]),
        window_extent(size[1], kernel[1], node["stride"][1], left, right, dilation[1]),
    )


def _conv2d(node: Node, given: list[TensorType]) -> Shape:
    (batch, channels, *size), (features, fan_in, *kernel) = given[0].shape, given[1].shape
    if channels != fan_in * node["groups"]:
        raise ValueError(f"{channels} channels for {node['groups']} groups of {fan_in}")
    return (batch, features, *_window(node, tuple(size), tuple(kernel), node["dilation"]))


def _depthwise_conv2d(node: Node, given: list[TensorType]) -> Shape:
    (batch, channels, *size), (features, one, *kernel) = given[0].shape, given[1].shape
    if one != 1 or features % channels:
        raise ValueError(f"a weight of {given[1].shape} for {channels} channels")
    return (batch, features, *_window(node, tuple(size), tuple(kernel), node["dilation"]))


def _linear(node: Node, given: list[TensorType]) -> Shape:
    features, fan_in = given[1].shape
    if given[0].shape[-1] != fan_in:
        raise ValueError(f"the last axis must be {fan_in}")
    return (*given[0].shape[:-1], features)


def _pool2d(node: Node, given: list[TensorType]) -> Shape:
    batch, channels, *size = given[0].shape
    return (batch, channels, *_window(node, tuple(size), node["kernel_size"]))


def _same(node: Node, given: list[TensorType]) -> Shape:
    return given[0].shape


def _broadcast(node: Node, given: list[TensorType]) -> Shape:
    return np.broadcast_shapes(given[0].shape, given[1].shape)


def _mean(node: Node, given: list[TensorType]) -> Shape:
    if node["keepdim"]:
        return tuple(1 if axis in node["axes"] else size for axis, size in enumerate(given[0].shape))
    return tuple(size for axis, size in enumerate(given[0].shape) if axis not in node["axes"])


def _reshape(node: Node, given: list[TensorType]) -> Shape:
    if prod(node["shape"]) != given[0].elements:
        raise ValueError(f"{given[0].elements} elements cannot take the shape {node['shape']}")
    shape: Shape = node["shape"]
    return shape


def _permute(node: Node, given: list[TensorType]) -> Shape:
    return tuple(given[0].shape[axis] for axis in node["axes"])


def _concat(node: Node, given: list[TensorType]) -> Shape:
    axis, first = node["axis"], given[0].shape
    for other in given[1:]:
        if other.shape[:axis] + other.shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
            raise ValueError(f"only axis {axis} may differ")
    return (*first[:axis], sum(t.shape[axis] for t in given), *first[axis + 1 :])


def _pad(node: Node, given: list[TensorType]) -> Shape:
    rank, amounts = given[0].rank, node["amounts"]
    return tuple(b + size + a for b, size, a in zip(amounts[:rank], given[0].shape, amounts[rank:], strict=True))


def _slice(node: Node, given: list[TensorType]) -> Shape:
    shape = list(given[0].shape)
    for axis, start, stop, step in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
        shape[axis] = len(range(start, stop, step))
    return tuple(shape)


SHAPE_RULES: dict[Op, ShapeRule] = {
    Op.CONV2D: _conv2d,
    Op.DEPTHWISE_CONV2D: _depthwise_conv2d,
    Op.LINEAR: _linear,
    Op.BATCH_NORM: _same,
    Op.RELU: _same,
    Op.RELU6: _same,
    Op.LEAKY_RELU: _same,
    Op.SIGMOID: _same,
    Op.TANH: _same,
    Op.HARDSWISH: _same,
    Op.SOFTMAX: _same,
    Op.ADD: _broadcast,
    Op.SUB: _broadcast,
    Op.MUL: _broadcast,
    Op.MAX_POOL2D: _pool2d,
    Op.AVG_POOL2D: _pool2d,
    Op.MEAN: _mean,
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.CONCAT: _concat,
    Op.PAD: _pad,
    Op.SLICE: _slice,
}
