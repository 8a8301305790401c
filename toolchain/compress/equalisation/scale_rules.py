"""How a channel's factor passes each op: one rule an op, in `SCALE_RULES`; through an op without one nothing passes.

See `scale_flow` for labels. `A (B f) = (A B) f` lets a factor pass a matmul along the rows of the left or the columns
of the right operand, `g (f x) = f (g x)` a product with anything that keeps its scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import TypeAlias

import numpy as np

from toolchain.compress.equalisation.scale_flow import UNIT, Ceiling, ScaledUse, ScaleFlow, compact
from toolchain.graph import Graph, Node, Op, Structure
from toolchain.graph.components import connected

ScaleRule: TypeAlias = Callable[[ScaleFlow, Node], np.ndarray]
"""From the flow so far and a node to the labels of its result."""


def trace_scales(graph: Graph, structure: Structure | None = None) -> ScaleFlow:
    """The flow of factors through the whole graph. What enters and what leaves it keeps its scale."""
    flow = ScaleFlow(graph, structure)
    for value in graph.inputs:
        flow.places[value.name] = flow.units(value.name)
    for node in graph.nodes:
        labels = SCALE_RULES.get(node.op, _opaque)(flow, node)
        flow.places[node.output] = labels
        if node.attributes.get("activation") == "relu6":
            flow.ceilings.append(Ceiling(node.output, labels, -inf, 6.0))
    for name in graph.outputs:
        flow.pin(name, "it is an output of the graph")
    return flow


# ---- layers ------------------------------------------------------------------------------------------------


def _weighted(flow: ScaleFlow, node: Node, channels: np.ndarray, axis: int) -> np.ndarray:
    """A layer reads `channels`, labels that broadcast to (C_out, C_in / groups), and makes new ones along `axis`."""
    reason = flow.why_weight_stays(node)
    if reason:
        flow.pin(node.inputs[0], f"{node.name} reads it, and {reason}")
        flow.reasons.setdefault(node.output, reason)
        return flow.units(node.output)
    features, *kernel = flow.shape(node.inputs[1])
    made = flow.new_labels(features)
    ones = (1,) * (len(kernel) - 1)
    flow.use_weight(node, 1, made.reshape(-1, 1, *ones), channels.reshape(*channels.shape, *ones))
    for position in range(2, len(node.inputs)):
        flow.follow(node, position, made)
    return _along(flow, node.output, axis, made)


def _conv2d(flow: ScaleFlow, node: Node) -> np.ndarray:
    features, fan_in = flow.shape(node.inputs[1])[:2]
    blocks = flow.channels(node.inputs[0], 1).reshape(node["groups"], 1, fan_in)
    channels = np.broadcast_to(blocks, (node["groups"], features // node["groups"], fan_in))
    return _weighted(flow, node, channels.reshape(features, fan_in), 1)


def _depthwise_conv2d(flow: ScaleFlow, node: Node) -> np.ndarray:
    channels = flow.channels(node.inputs[0], 1)
    return _weighted(flow, node, np.repeat(channels, flow.shape(node.output)[1] // len(channels))[:, None], 1)


def _linear(flow: ScaleFlow, node: Node) -> np.ndarray:
    last = len(flow.shape(node.output)) - 1
    return _weighted(flow, node, flow.channels(node.inputs[0], last)[None], last)


def _along(flow: ScaleFlow, name: str, axis: int, labels: np.ndarray) -> np.ndarray:
    shape = [1] * len(flow.shape(name))
    shape[axis] = len(labels)
    return labels.reshape(shape)


def _batch_norm(flow: ScaleFlow, node: Node) -> np.ndarray:
    """y = weight (x - mean) / sqrt(variance + epsilon) + bias: the mean goes with x, the variance stays."""
    channels = flow.channels(node.inputs[0], 1)
    made = flow.new_labels(len(channels))
    flow.uses.append(ScaledUse(node, 1, made, channels, True))
    flow.follow(node, 2, made)
    flow.follow(node, 3, channels)
    return _along(flow, node.output, 1, made)


def _norm(flow: ScaleFlow, node: Node) -> np.ndarray:
    """The affine part of a layer norm or RMS norm makes the channels of its result."""
    flow.pin(node.inputs[0], f"{node.name} divides it by what it holds")
    if len(node.inputs) == 1 or not all(flow.graph.is_constant(name) for name in node.inputs[1:]):
        return flow.units(node.output)
    shape = flow.shape(node.inputs[1])
    made = flow.new_labels(int(np.prod(shape))).reshape(shape)
    for position in range(1, len(node.inputs)):
        flow.follow(node, position, made)
    return made.reshape((1,) * (len(flow.shape(node.output)) - made.ndim) + shape)


# ---- element by element ------------------------------------------------------------------------------------


def _same(flow: ScaleFlow, node: Node) -> np.ndarray:
    return flow.labels(node.inputs[0])


def _prelu(flow: ScaleFlow, node: Node) -> np.ndarray:
    """The slope, a factor itself, keeps its scale."""
    flow.pin(node.inputs[1], f"{node.name} multiplies by it")
    return flow.labels(node.inputs[0])


def _relu6(flow: ScaleFlow, node: Node) -> np.ndarray:
    labels = flow.labels(node.inputs[0])
    flow.ceilings.append(Ceiling(node.output, labels, -inf, 6.0))
    return labels


def _clamp(flow: ScaleFlow, node: Node) -> np.ndarray:
    """A bound of 0 is that of a relu; any other is a ceiling."""
    low, high = float(node["low"]), float(node["high"])
    if low > 0 or high < 0:
        return _opaque(flow, node)
    labels = flow.labels(node.inputs[0])
    flow.ceilings.append(Ceiling(node.output, labels, low or -inf, high or inf))
    return labels


def _sum_of_two(flow: ScaleFlow, node: Node) -> np.ndarray:
    """Both operands have the same factors; a constant one follows."""
    constants = [k for k, name in enumerate(node.inputs) if flow.graph.is_constant(name)]
    rank = len(flow.shape(node.output))
    if len(constants) == 2:
        return flow.units(node.output)
    if not constants:
        left, right = (_widened(flow.labels(name), rank) for name in node.inputs)
        return flow.tie(left, right)
    labels = _widened(flow.labels(node.inputs[1 - constants[0]]), rank)
    if np.any(labels != UNIT):
        if not np.any(flow.graph.constants[node.inputs[constants[0]]]):
            return labels
        flow.follow(node, constants[0], labels)
    return labels


def _mul(flow: ScaleFlow, node: Node) -> np.ndarray:
    """One operand's factors pass, the other keeps its scale; a constant vector makes channels of its own."""
    rank = len(flow.shape(node.output))
    constants = [k for k, name in enumerate(node.inputs) if flow.graph.is_constant(name)]
    if len(constants) == 1:
        return _times_constant(flow, node, constants[0])
    left, right = (_widened(flow.labels(name), rank) for name in node.inputs)
    if _keeps_scale(flow, right):
        return left
    if not _keeps_scale(flow, left):
        flow.pin(node.inputs[0], f"{node.name} multiplies it by another tensor")
    return right


def _times_constant(flow: ScaleFlow, node: Node, position: int) -> np.ndarray:
    rank = len(flow.shape(node.output))
    labels = _widened(flow.labels(node.inputs[1 - position]), rank)
    shape = flow.shape(node.inputs[position])
    wide = (1,) * (rank - len(shape)) + shape
    axes = [axis for axis, size in enumerate(wide) if size > 1]
    varies = [axis for axis, size in enumerate(labels.shape) if size > 1]
    if len(axes) != 1 or any(axis != axes[0] for axis in varies):
        return labels
    made = _along(flow, node.output, axes[0], flow.new_labels(wide[axes[0]]))
    up, down = (a.reshape(a.shape[rank - len(shape) :]) for a in (made, labels))
    flow.uses.append(ScaledUse(node, position, up, down, True))
    return made


def _div(flow: ScaleFlow, node: Node) -> np.ndarray:
    flow.pin(node.inputs[1], f"{node.name} divides by it")
    return _widened(flow.labels(node.inputs[0]), len(flow.shape(node.output)))


def _where(flow: ScaleFlow, node: Node) -> np.ndarray:
    rank = len(flow.shape(node.output))
    return flow.tie(*(_widened(flow.labels(name), rank) for name in node.inputs[1:]))


def _widened(labels: np.ndarray, rank: int) -> np.ndarray:
    return labels.reshape((1,) * (rank - labels.ndim) + labels.shape)


def _keeps_scale(flow: ScaleFlow, labels: np.ndarray) -> bool:
    return not np.any(labels) or not np.any(connected(flow.count, flow.ties)[labels])


def _matmul(flow: ScaleFlow, node: Node) -> np.ndarray:
    left, right = node.inputs
    rank = len(flow.shape(node.output))
    if len(flow.shape(left)) < 2 or len(flow.shape(right)) < 2:
        return _opaque(flow, node)
    if _keeps_scale(flow, flow.labels(right)):
        labels = flow.labels(left)
        return _widened(flow.collapse(labels, [labels.ndim - 1]), rank)
    flow.pin(left, f"{node.name} multiplies it by another tensor")
    labels = flow.labels(right)
    return _widened(flow.collapse(labels, [labels.ndim - 2]), rank)


# ---- pools, reductions, moves ------------------------------------------------------------------------------


def _pool2d(flow: ScaleFlow, node: Node) -> np.ndarray:
    return flow.collapse(flow.labels(node.inputs[0]), (2, 3))


def _reduction(flow: ScaleFlow, node: Node) -> np.ndarray:
    labels = flow.collapse(flow.labels(node.inputs[0]), node["axes"])
    return (
        labels if node["keepdim"] else labels.reshape([n for a, n in enumerate(labels.shape) if a not in node["axes"]])
    )


def _cumsum(flow: ScaleFlow, node: Node) -> np.ndarray:
    return flow.collapse(flow.labels(node.inputs[0]), [node["axis"]])


def _reshape(flow: ScaleFlow, node: Node) -> np.ndarray:
    labels = flow.labels(node.inputs[0])
    if labels.size == 1:
        return labels.reshape((1,) * len(node["shape"]))
    return compact(np.broadcast_to(labels, flow.shape(node.inputs[0])).reshape(node["shape"]))


def _permute(flow: ScaleFlow, node: Node) -> np.ndarray:
    return flow.labels(node.inputs[0]).transpose(node["axes"])


def _concat(flow: ScaleFlow, node: Node) -> np.ndarray:
    axis = node["axis"]
    parts = [flow.labels(name) for name in node.inputs]
    others = np.broadcast_shapes(*(tuple(1 if a == axis else n for a, n in enumerate(p.shape)) for p in parts))
    wide = []
    for name, part in zip(node.inputs, parts, strict=True):
        shape = list(others)
        shape[axis] = flow.shape(name)[axis]
        wide.append(np.broadcast_to(part, shape))
    return compact(np.concatenate(wide, axis))


def _pad(flow: ScaleFlow, node: Node) -> np.ndarray:
    """Zeros stay zeros whatever the factor; what is repeated keeps that of its neighbours."""
    labels, rank, amounts = flow.labels(node.inputs[0]), len(flow.shape(node.output)), node["amounts"]
    padded = [axis for axis in range(rank) if amounts[axis] or amounts[rank + axis]]
    if node["mode"] != "constant":
        return flow.collapse(labels, padded)
    if node["value"] != 0.0:
        return _opaque(flow, node)
    along = [axis for axis in padded if labels.shape[axis] > 1]
    if any(min(amounts[axis], amounts[rank + axis]) < 0 for axis in along):
        labels, along = flow.collapse(labels, along), []
    widths = [(amounts[a], amounts[rank + a]) if a in along else (0, 0) for a in range(rank)]
    return np.pad(labels, widths, constant_values=UNIT)


def _slice(flow: ScaleFlow, node: Node) -> np.ndarray:
    labels = flow.labels(node.inputs[0])
    for axis, start, stop, step in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
        if labels.shape[axis] > 1:
            labels = labels.take(np.arange(start, stop, step), axis)
    return labels


def _expand(flow: ScaleFlow, node: Node) -> np.ndarray:
    return _widened(flow.labels(node.inputs[0]), len(flow.shape(node.output)))


def _gather(flow: ScaleFlow, node: Node) -> np.ndarray:
    """Whole slices are selected: their place along `axis` is taken by the axes of the indices."""
    axis = node["axis"]
    labels = flow.collapse(flow.labels(node.inputs[0]), [axis])
    ones = (1,) * len(flow.shape(node.inputs[1]))
    return labels.reshape(labels.shape[:axis] + ones + labels.shape[axis + 1 :])


def _depth_to_space(flow: ScaleFlow, node: Node) -> np.ndarray:
    """The channels that become one channel's pixels have one factor."""
    channels, area = flow.shape(node.output)[1], node["block"] ** 2
    labels = flow.channels(node.inputs[0], 1)
    blocks = labels.reshape(channels, area) if node["channels_first"] else labels.reshape(area, channels).T
    return _along(flow, node.output, 1, flow.collapse(blocks, [1]).reshape(-1))


def _space_to_depth(flow: ScaleFlow, node: Node) -> np.ndarray:
    labels, area = flow.channels(node.inputs[0], 1), node["block"] ** 2
    made = np.repeat(labels, area) if node["channels_first"] else np.tile(labels, area)
    return _along(flow, node.output, 1, made)


def _opaque(flow: ScaleFlow, node: Node) -> np.ndarray:
    for name in node.inputs:
        flow.pin(name, f"{node.name} ({node.op}) is not positively homogeneous")
    return flow.units(node.output)


SCALE_RULES: Mapping[Op, ScaleRule] = {
    Op.CONV2D: _conv2d,
    Op.CONV_TRANSPOSE2D: _conv2d,
    Op.DEPTHWISE_CONV2D: _depthwise_conv2d,
    Op.LINEAR: _linear,
    Op.BATCH_NORM: _batch_norm,
    **dict.fromkeys((Op.LAYER_NORM, Op.RMS_NORM), _norm),
    **dict.fromkeys((Op.RELU, Op.LEAKY_RELU, Op.ABS, Op.NEG, Op.REQUANTIZE), _same),
    Op.PRELU: _prelu,
    Op.RELU6: _relu6,
    Op.CLAMP: _clamp,
    **dict.fromkeys((Op.ADD, Op.SUB, Op.MINIMUM, Op.MAXIMUM), _sum_of_two),
    Op.MUL: _mul,
    Op.DIV: _div,
    Op.WHERE: _where,
    Op.MATMUL: _matmul,
    **dict.fromkeys((Op.MAX_POOL2D, Op.AVG_POOL2D, Op.RESIZE), _pool2d),
    **dict.fromkeys((Op.MEAN, Op.SUM, Op.REDUCE_MAX, Op.REDUCE_MIN), _reduction),
    Op.CUMSUM: _cumsum,
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.CONCAT: _concat,
    Op.PAD: _pad,
    Op.SLICE: _slice,
    Op.EXPAND: _expand,
    Op.GATHER: _gather,
    Op.DEPTH_TO_SPACE: _depth_to_space,
    Op.SPACE_TO_DEPTH: _space_to_depth,
}
"""An op that is missing takes nothing but its scale as it is."""
