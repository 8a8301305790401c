"""Shape facet: the type of an op's results from the types of its inputs.

Windows follow `out = floor((in + before + after - dilation * (kernel - 1) - 1) / stride) + 1`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import TypeAlias

import numpy as np

from toolchain.graph.node import Node, unsupported
from toolchain.graph.ops import GATES, RECURRENT, SIGNATURES, Op
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
        types[node.output] = TensorType(result_dtype(node, given), shape)
    return types


def result_dtype(node: Node, given: list[TensorType]) -> DType:
    """Element type of a node's result: its signature's, a cast's own, else that of its inputs."""
    if node.op is Op.CAST:
        return DType(node["dtype"])
    return SIGNATURES[node.op].dtype or given[1 if node.op is Op.WHERE else 0].dtype


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


def _recurrent(node: Node, given: list[TensorType]) -> Shape:
    (batch, steps, channels), (rows, fan_in), (others, hidden) = (kind.shape for kind in given[:3])
    if channels != fan_in or not rows == others == GATES[node.op] * hidden:
        raise ValueError(f"weights of {given[1].shape} and {given[2].shape} for {channels} channels")
    if any(kind.shape != (rows,) for kind in given[3:5]):
        raise ValueError(f"biases must be of shape {(rows,)}")
    if any(kind.shape not in ((batch, hidden), (1, hidden)) for kind in given[5:]):
        raise ValueError(f"states must be of shape {(batch, hidden)}")
    return (batch, hidden) if node.attributes.get("gives") == "cell" else (batch, steps, hidden)


def _pool2d(node: Node, given: list[TensorType]) -> Shape:
    batch, channels, *size = given[0].shape
    return (batch, channels, *_window(node, tuple(size), node["kernel_size"]))


def _same(node: Node, given: list[TensorType]) -> Shape:
    return given[0].shape


def _broadcast(node: Node, given: list[TensorType]) -> Shape:
    return np.broadcast_shapes(*(kind.shape for kind in given))


def _conv_transpose2d(node: Node, given: list[TensorType]) -> Shape:
    (batch, channels, *size), (features, fan_in, *kernel) = given[0].shape, given[1].shape
    if channels != fan_in * node["groups"]:
        raise ValueError(f"{channels} channels for {node['groups']} groups of {fan_in}")
    before, after = node["padding"][:2], node["padding"][2:]
    extents = [
        (size[i] - 1) * node["stride"][i]
        + node["dilation"][i] * (kernel[i] - 1)
        + 1
        + node["output_padding"][i]
        - before[i]
        - after[i]
        for i in range(2)
    ]
    return (batch, features, *extents)


def _prelu(node: Node, given: list[TensorType]) -> Shape:
    _broadcast(node, given)
    return given[0].shape


def _matmul(node: Node, given: list[TensorType]) -> Shape:
    left, right = given[0].shape, given[1].shape
    if len(left) < 2 or len(right) < 2 or left[-1] != right[-2]:
        raise ValueError("the last axis of the first must be the last but one of the second")
    return (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])


def _norm(node: Node, given: list[TensorType]) -> Shape:
    rank, axes = given[0].rank, node["axes"]
    if axes != tuple(range(rank - len(axes), rank)):
        raise ValueError(f"{axes} are not the last axes of {rank}")
    return given[0].shape


def _reduction(node: Node, given: list[TensorType]) -> Shape:
    axes = node["axes"] if "axes" in node.attributes else (node["axis"],)
    if node["keepdim"]:
        return tuple(1 if axis in axes else size for axis, size in enumerate(given[0].shape))
    return tuple(size for axis, size in enumerate(given[0].shape) if axis not in axes)


def _topk(node: Node, given: list[TensorType]) -> Shape:
    shape, axis = given[0].shape, node["axis"]
    if node["count"] > shape[axis]:
        raise ValueError(f"{node['count']} of {shape[axis]}")
    return (*shape[:axis], node["count"], *shape[axis + 1 :])


def _expand(node: Node, given: list[TensorType]) -> Shape:
    shape: Shape = node["shape"]
    if np.broadcast_shapes(given[0].shape, shape) != shape:
        raise ValueError(f"it cannot take the shape {shape}")
    return shape


def _gather(node: Node, given: list[TensorType]) -> Shape:
    axis, shape = node["axis"], given[0].shape
    return (*shape[:axis], *given[1].shape, *shape[axis + 1 :])


def _gather_elements(node: Node, given: list[TensorType]) -> Shape:
    return given[1].shape


def _resize(node: Node, given: list[TensorType]) -> Shape:
    return (*given[0].shape[:2], *node["size"])


def _depth_to_space(node: Node, given: list[TensorType]) -> Shape:
    (batch, channels, height, width), block = given[0].shape, node["block"]
    if channels % block**2:
        raise ValueError(f"{channels} channels are no multiple of {block**2}")
    return (batch, channels // block**2, height * block, width * block)


def _space_to_depth(node: Node, given: list[TensorType]) -> Shape:
    (batch, channels, height, width), block = given[0].shape, node["block"]
    if height % block or width % block:
        raise ValueError(f"{height}x{width} is not made of blocks of {block}")
    return (batch, channels * block**2, height // block, width // block)


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


_LIKE_THE_INPUT = (
    *(Op.BATCH_NORM, Op.RELU, Op.RELU6, Op.LEAKY_RELU, Op.ELU, Op.GELU, Op.SIGMOID, Op.TANH, Op.HARDSWISH, Op.SOFTPLUS),
    *(Op.MISH, Op.CLAMP, Op.SOFTMAX, Op.LOG_SOFTMAX, Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.ABS, Op.NEG, Op.SIN, Op.COS),
    *(Op.FLOOR, Op.CEIL, Op.ROUND, Op.SIGN, Op.ERF, Op.CAST, Op.REQUANTIZE, Op.LOGICAL_NOT, Op.CUMSUM),
)
_BROADCAST = (
    *(Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.POW, Op.MINIMUM, Op.MAXIMUM, Op.EQUAL, Op.NOT_EQUAL, Op.LESS, Op.LESS_EQUAL),
    *(Op.GREATER, Op.GREATER_EQUAL, Op.LOGICAL_AND, Op.LOGICAL_OR, Op.WHERE),
)

SHAPE_RULES: dict[Op, ShapeRule] = {
    **dict.fromkeys(_LIKE_THE_INPUT, _same),
    **dict.fromkeys(_BROADCAST, _broadcast),
    Op.CONV2D: _conv2d,
    Op.DEPTHWISE_CONV2D: _depthwise_conv2d,
    Op.CONV_TRANSPOSE2D: _conv_transpose2d,
    Op.LINEAR: _linear,
    **dict.fromkeys(RECURRENT, _recurrent),
    Op.LAYER_NORM: _norm,
    Op.RMS_NORM: _norm,
    Op.PRELU: _prelu,
    Op.MATMUL: _matmul,
    Op.MAX_POOL2D: _pool2d,
    Op.AVG_POOL2D: _pool2d,
    Op.MEAN: _reduction,
    Op.SUM: _reduction,
    Op.REDUCE_MAX: _reduction,
    Op.REDUCE_MIN: _reduction,
    Op.ARGMAX: _reduction,
    Op.ARGMIN: _reduction,
    Op.TOPK_VALUES: _topk,
    Op.TOPK_INDICES: _topk,
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.CONCAT: _concat,
    Op.PAD: _pad,
    Op.SLICE: _slice,
    Op.EXPAND: _expand,
    Op.GATHER: _gather,
    Op.GATHER_ELEMENTS: _gather_elements,
    Op.RESIZE: _resize,
    Op.DEPTH_TO_SPACE: _depth_to_space,
    Op.SPACE_TO_DEPTH: _space_to_depth,
}
