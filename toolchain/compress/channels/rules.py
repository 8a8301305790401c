"""Channel facet: how channels flow through an op, one rule an op, all in `CHANNEL_RULES`.

Every index of every axis of every tensor carries the **label** of the channel it belongs to; indices that
must go together carry labels that are tied. A rule reads the labels of its node's inputs, ties what the op
ties and returns the labels of its result, one array an axis: a ReLU hands its input's labels on, a flatten of
`(N, C, H, W)` repeats each of the C labels H*W times, a concat joins arrays, a residual add ties two. An axis
that must keep every index is `Fixed` and says why; what is tied to it is pinned.

This is the dependency graph of DepGraph (Fang et al., arXiv 2301.12900) held as labels instead of edges
between layers: index mappings need no code of their own, because a label array *is* the mapping.

Grouped convolution, `groups` blocks of J inputs and K outputs each, ties what keeps the blocks equal: where
there are more blocks than inputs in one (depthwise: J = 1), whole blocks go; else the j-th input (k-th
output) of every block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import TypeAlias

import numpy as np

from toolchain.compress.channels.flow import Axis, ChannelFlow, Fixed, Labels
from toolchain.graph import RECURRENT, Graph, Node, Op
from toolchain.graph.ops import GATES
from toolchain.graph.types import Shape


def trace_channels(graph: Graph) -> ChannelFlow:
    """The flow of channels through the whole graph. What enters and what leaves it keeps its shape."""
    flow = ChannelFlow(graph)
    for value in graph.inputs:
        fixed = Fixed(f"{value.name} is an input of the graph")
        flow.places |= {(value.name, axis): fixed for axis in range(value.type.rank)}
    for node in graph.nodes:
        axes = CHANNEL_RULES[node.op](flow, node)
        flow.places |= {(node.output, axis): labels for axis, labels in enumerate(axes)}
    for name in graph.outputs:
        for axis in flow.axes(name):
            flow.pin(axis, f"{name} is an output of the graph")
    return flow


ChannelRule: TypeAlias = Callable[[ChannelFlow, Node], Sequence[Axis]]


# ---- ops with weights --------------------------------------------------------------------------------------


def _conv2d(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    batch, channels, *window = flow.axes(node.inputs[0])
    features = _produced(flow, node)
    fan_in, groups = flow.shape(node.inputs[1])[1], node["groups"]
    if groups == 1:
        flow.tie(channels, flow.axis(node.inputs[1], 1))
    elif groups > fan_in:
        _tie_blocks(flow, channels, features, groups)
    else:
        _tie_columns(flow, channels, flow.axis(node.inputs[1], 1), groups)
        _tie_columns(flow, features, features[: len(features) // groups], groups)
    return (batch, features, *_windowed(flow, node, window))


def _depthwise_conv2d(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    batch, channels, *window = flow.axes(node.inputs[0])
    features = _produced(flow, node)
    _tie_blocks(flow, channels, features, flow.shape(node.inputs[0])[1])
    return (batch, features, *_windowed(flow, node, window))


def _linear(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    *rest, channels = flow.axes(node.inputs[0])
    flow.tie(channels, flow.axis(node.inputs[1], 1))
    return (*rest, _produced(flow, node))


def _recurrent(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    """A hidden channel is a row of every gate, a column of the recurrent weight and an index of the states."""
    batch, steps, channels = flow.axes(node.inputs[0])
    weight, recurrent_weight, *biases = node.inputs[1:5]
    flow.tie(channels, flow.axis(weight, 1))
    hidden = flow.tie(flow.axis(recurrent_weight, 1), flow.new_labels(flow.shape(recurrent_weight)[1]))
    for name in (weight, recurrent_weight, *biases):
        rows = flow.axis(name, 0)
        flow.tie(rows, hidden if isinstance(hidden, Fixed) else np.tile(hidden, GATES[node.op]))
    for state in node.inputs[5:]:
        flow.tie(flow.axis(state, len(flow.shape(state)) - 1), hidden)
    steps = flow.pin(steps, f"{node.name} ({node.op}) goes through it step by step")
    return (batch, hidden) if node.attributes.get("gives") == "cell" else (batch, steps, hidden)


def _produced(flow: ChannelFlow, node: Node) -> Labels:
    """Labels of the output channels: those of the weight's axis 0, and of the bias."""
    features = flow.axis(node.inputs[1], 0)
    for bias in node.inputs[2:]:
        flow.tie(features, flow.axis(bias, 0))
    # a weight that the graph computes may have a fixed axis
    return features if not isinstance(features, Fixed) else _pinned_labels(flow, node.inputs[1], 0, features)


def _pinned_labels(flow: ChannelFlow, name: str, axis: int, fixed: Fixed) -> Labels:
    labels = flow.new_labels(flow.shape(name)[axis])
    flow.pin(labels, fixed.reason)
    return labels


def _tie_blocks(flow: ChannelFlow, channels: Axis, features: Labels, groups: int) -> None:
    """The inputs and the outputs of one block go together."""
    if isinstance(channels, Fixed):
        flow.pin(features, channels.reason)
        return
    inputs, outputs = len(channels) // groups, len(features) // groups
    first = channels[::inputs]
    if inputs > 1:
        flow.tie(np.repeat(first, inputs), channels)
    flow.tie(np.repeat(first, outputs), features)


def _tie_columns(flow: ChannelFlow, channels: Axis, column: Axis, groups: int) -> None:
    """Index j of every block goes with index j of `column`."""
    flow.tie(channels, column if isinstance(column, Fixed) else np.tile(column, groups))


def _windowed(flow: ChannelFlow, node: Node, axes: Sequence[Axis]) -> list[Axis]:
    return [flow.pin(axis, f"{node.name} moves a window along it") for axis in axes]


def _batch_norm(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    axes = list(flow.axes(node.inputs[0]))
    for name in node.inputs[1:]:
        axes[1] = flow.tie(axes[1], flow.axis(name, 0))
    return axes


# ---- elementwise, pooling, reduction -----------------------------------------------------------------------


def _same(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    return flow.axes(node.inputs[0])


def _matmul(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    """The axis that is summed over is one; the heads of an attention are the axes before the last two."""
    ranks = [len(flow.shape(name)) for name in node.inputs]
    if min(ranks) < 2:
        return _opaque(flow, node)
    left, right = (flow.axes(name) for name in node.inputs)
    flow.tie(left[-1], right[-2])
    rank = len(flow.shape(node.output))
    return (*(_spread(flow, node, axis - rank) for axis in range(rank - 2)), left[-2], right[-1])


def _softmax(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    axes = list(flow.axes(node.inputs[0]))
    axes[node["axis"]] = flow.pin(axes[node["axis"]], f"{node.name} divides by the sum over it")
    return axes


def _pool2d(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    batch, channels, *window = flow.axes(node.inputs[0])
    return (batch, channels, *_windowed(flow, node, window))


def _mean(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    axes: list[Axis] = []
    for axis, labels in enumerate(flow.axes(node.inputs[0])):
        if axis not in node["axes"]:
            axes.append(labels)
            continue
        fixed = flow.pin(labels, f"{node.name} divides by its size")
        axes += [fixed] if node["keepdim"] else []
    return axes


def _broadcast(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    rank = len(flow.shape(node.output))
    return [_spread(flow, node, axis - rank) for axis in range(rank)]


def _spread(flow: ChannelFlow, node: Node, axis: int) -> Axis:
    """One axis, counted from the last, of the result of an elementwise op with several inputs."""
    found = [_from_last(flow, name, axis) for name in node.inputs]
    widest = max(size for _, size in found)
    for labels, size in found:
        if size < widest:
            flow.pin(labels, f"{node.name} spreads its one index over many")
    return reduce(flow.tie, [labels for labels, size in found if size == widest])


def _from_last(flow: ChannelFlow, name: str, axis: int) -> tuple[Axis, int]:
    shape = flow.shape(name)
    if -axis > len(shape):
        return Fixed(f"{name} has no such axis"), 1
    return flow.axis(name, len(shape) + axis), shape[axis]


def _expand(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    shape = flow.shape(node.output)
    axes: list[Axis] = []
    for axis, size in enumerate(shape):
        labels, before = _from_last(flow, node.inputs[0], axis - len(shape))
        reason = f"{node.name} spreads its one index over many"
        axes.append(labels if before == size else flow.pin(labels, reason))
    return axes


# ---- moves -------------------------------------------------------------------------------------------------


def _concat(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    first, *others = (list(flow.axes(name)) for name in node.inputs)
    joined = node["axis"]
    parts = [first[joined], *(axes[joined] for axes in others)]
    for axes in others:
        first = [a if k == joined else flow.tie(a, b) for k, (a, b) in enumerate(zip(first, axes, strict=True))]
    fixed = [part for part in parts if isinstance(part, Fixed)]
    if len(fixed) == len(parts):
        first[joined] = fixed[0]
        return first
    named = zip(node.inputs, parts, strict=True)
    labels = [_pinned_labels(flow, n, joined, part) if isinstance(part, Fixed) else part for n, part in named]
    first[joined] = np.concatenate(labels)
    return first


def _permute(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    axes = flow.axes(node.inputs[0])
    return [axes[axis] for axis in node["axes"]]


def _pad(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    axes, amounts = flow.axes(node.inputs[0]), node["amounts"]
    padded = (amounts[axis] or amounts[len(axes) + axis] for axis in range(len(axes)))
    reason = f"{node.name} pads along it"
    return [flow.pin(axis, reason) if pads else axis for axis, pads in zip(axes, padded, strict=True)]


def _slice(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    axes = list(flow.axes(node.inputs[0]))
    for axis, start, stop, step in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
        labels = axes[axis]
        if step == 1 and not isinstance(labels, Fixed):
            axes[axis] = labels[start:stop]
        else:
            axes[axis] = flow.pin(labels, f"{node.name} takes every {step}th of it")
    return axes


def _reshape(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    """Axes of size 1 come and go; the others match in the smallest runs that hold equally many elements."""
    given, wanted = flow.shape(node.inputs[0]), node["shape"]
    before = flow.axes(node.inputs[0])
    after: list[Axis] = [Fixed("it has one index")] * len(wanted)
    for sources, targets in matching_runs(given, wanted):
        labels = [before[axis] for axis in sources]
        if len(targets) == 1:
            after[targets[0]] = _merged(flow, node, labels, [given[axis] for axis in sources])
        elif len(sources) == 1:
            parts = _split(flow, node, labels[0], targets)
            for axis, part in zip(targets, parts, strict=True):
                after[axis] = part
        else:
            fixed = [flow.pin(axis, f"{node.name} mixes it with other axes") for axis in labels]
            for axis in targets:
                after[axis] = fixed[0]
    return after


def matching_runs(given: Shape, wanted: Shape) -> list[tuple[list[int], list[int]]]:
    """The axes of a reshape in runs of equally many elements, axes of size 1 left out: `(2, 3, 1, 4) -> (6,
    4)` gives `([0, 1], [0])` and `([3], [1])`."""
    left = [axis for axis, size in enumerate(given) if size != 1]
    right = [axis for axis, size in enumerate(wanted) if size != 1]
    runs = []
    while left and right:
        sources, targets = [left.pop(0)], [right.pop(0)]
        while (a := prod(given[i] for i in sources)) != (b := prod(wanted[i] for i in targets)):
            if a < b:
                sources.append(left.pop(0))
            else:
                targets.append(right.pop(0))
        runs.append((sources, targets))
    return runs


def _merged(flow: ChannelFlow, node: Node, axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    """Many axes become one: the one that can be cut (the channels of a flatten) lends the result its
    labels."""
    alive = [(k, axis) for k, axis in enumerate(axes) if not isinstance(axis, Fixed)]
    if len(alive) == 1:
        ((k, labels),) = alive
        shape = [size if axis == k else 1 for axis, size in enumerate(sizes)]
        return np.broadcast_to(labels.reshape(shape), sizes).reshape(-1)
    fixed = [flow.pin(axis, f"{node.name} mixes it with other channels") for axis in axes]
    return fixed[0]


def _split(flow: ChannelFlow, node: Node, axis: Axis, targets: Sequence[int]) -> list[Axis]:
    """One axis becomes many: one of them carries the channels, the outermost that is not taken apart afterwards, as in
    `(N, C*H*W) -> (N, C, H, W)` and in `(N, T, 3*H*D) -> (N, T, 3, H, D)`, queries, keys and values of H heads."""
    if isinstance(axis, Fixed):
        return [axis] * len(targets)
    sizes = [node["shape"][target] for target in targets]
    apart = [_taken_apart(flow.graph, node.output, target) for target in targets]
    carrier = apart.index(False) if False in apart else 0
    blocks = np.moveaxis(axis.reshape(sizes), carrier, 0).reshape(sizes[carrier], -1)
    flow.tie(np.repeat(blocks[:, 0], blocks.shape[1]), blocks.reshape(-1))
    fixed = Fixed(f"{node.name} splits it from the channels")
    return [blocks[:, 0] if k == carrier else fixed for k in range(len(targets))]


def _taken_apart(graph: Graph, name: str, axis: int) -> bool:
    """Whether all that reads `axis`, but for moving it, are slices of parts of it."""
    readers = graph.consumers.get(name, ())
    return bool(readers) and all(_takes_apart(graph, node, name, axis) for node in readers)


def _takes_apart(graph: Graph, node: Node, name: str, axis: int) -> bool:
    if node.op is Op.SLICE:
        return axis in node["axes"]
    if node.op is Op.PERMUTE:
        return _taken_apart(graph, node.output, node["axes"].index(axis))
    if node.op is Op.RESHAPE:
        given = graph.types[name].shape
        for sources, targets in matching_runs(given, node["shape"]):
            if sources == [axis] and len(targets) == 1:
                return _taken_apart(graph, node.output, targets[0])
    return False


# ---- ops through which no channel is followed --------------------------------------------------------------


def _opaque(flow: ChannelFlow, node: Node) -> Sequence[Axis]:
    """All that it reads keeps its size, and so does its result."""
    fixed = Fixed(f"{node.name} ({node.op}) needs every index")
    for name in node.inputs:
        for axis in flow.axes(name):
            flow.pin(axis, fixed.reason)
    return [fixed] * len(flow.shape(node.output))


_ELEMENTWISE = (
    *(Op.RELU, Op.RELU6, Op.LEAKY_RELU, Op.ELU, Op.GELU, Op.SIGMOID, Op.TANH, Op.HARDSWISH, Op.SOFTPLUS, Op.MISH),
    *(Op.CLAMP, Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.ABS, Op.NEG, Op.SIN, Op.COS, Op.FLOOR, Op.CEIL, Op.ROUND),
    *(Op.SIGN, Op.ERF, Op.CAST, Op.REQUANTIZE, Op.LOGICAL_NOT),
)
_BROADCASTING = (
    *(Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.POW, Op.MINIMUM, Op.MAXIMUM, Op.EQUAL, Op.NOT_EQUAL, Op.LESS, Op.LESS_EQUAL),
    *(Op.GREATER, Op.GREATER_EQUAL, Op.LOGICAL_AND, Op.LOGICAL_OR, Op.PRELU, Op.WHERE),
)
_OPAQUE = (
    *(Op.LAYER_NORM, Op.RMS_NORM, Op.ARGMAX, Op.ARGMIN, Op.CUMSUM, Op.TOPK_VALUES),
    *(Op.TOPK_INDICES, Op.GATHER, Op.GATHER_ELEMENTS, Op.DEPTH_TO_SPACE, Op.SPACE_TO_DEPTH),
)

CHANNEL_RULES: dict[Op, ChannelRule] = {
    **dict.fromkeys(_ELEMENTWISE, _same),
    **dict.fromkeys(_BROADCASTING, _broadcast),
    **dict.fromkeys(_OPAQUE, _opaque),
    **dict.fromkeys((Op.MEAN, Op.SUM, Op.REDUCE_MAX, Op.REDUCE_MIN), _mean),
    **dict.fromkeys((Op.CONV2D, Op.CONV_TRANSPOSE2D), _conv2d),
    **dict.fromkeys((Op.SOFTMAX, Op.LOG_SOFTMAX), _softmax),
    **dict.fromkeys((Op.MAX_POOL2D, Op.AVG_POOL2D, Op.RESIZE), _pool2d),
    Op.DEPTHWISE_CONV2D: _depthwise_conv2d,
    Op.LINEAR: _linear,
    Op.MATMUL: _matmul,
    **dict.fromkeys(RECURRENT, _recurrent),
    Op.BATCH_NORM: _batch_norm,
    Op.EXPAND: _expand,
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.CONCAT: _concat,
    Op.PAD: _pad,
    Op.SLICE: _slice,
}
"""The whole op set; `tests/test_facets.py` fails where an op is missing."""
