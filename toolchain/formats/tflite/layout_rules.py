"""Layout facet: the layout each op wants its inputs in, and the layout of its result.

The whole graph is laid out once, in evaluation order. A rule sees the layouts its inputs have and answers
with the ones it wants; where they differ, the writer puts a RESHAPE or TRANSPOSE between. Most rules want
what they are given:

* windows (convolutions, pools) want channels last
* elementwise ops, concat, pad, slice and mean keep any layout and map their axes through it
* permute only gives the axes other names
* softmax and linear want their axis last
* reshape keeps any order in which the axes it merges lie next to each other; where they do not, the order is
  either carried along the flattened axis to the linear layers that read it, or made by a TRANSPOSE
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from toolchain.formats.tflite.layout import CHANNELS_LAST, Flattened, Layout, Shape, default_layout, identity
from toolchain.graph import Graph, Node, Op


@dataclass(frozen=True)
class Given:
    """What a rule decides from: layouts (None: a constant) and shapes of the inputs, shape of the result."""

    layouts: tuple[Layout | None, ...]
    shapes: tuple[Shape, ...]
    result: Shape
    may_reorder: bool
    """Whether all that reads the result takes a flattened axis in any order."""

    @property
    def layout(self) -> Layout:
        """Of the first input, without an order along a flattened axis."""
        return (self.layouts[0] or identity(len(self.shapes[0]))).plain()

    def largest(self) -> Layout:
        """Of the activation with the most elements, the first of several."""
        known = [(prod(s), layout) for s, layout in zip(self.shapes, self.layouts, strict=True) if layout]
        return max(known, key=lambda pair: pair[0])[1] if known else identity(len(self.result))


@dataclass(frozen=True)
class Placement:
    """Layouts wanted of the inputs (None: a weight or bias, arranged by the lowering) and of the result."""

    wanted: tuple[Layout | None, ...]
    result: Layout


@dataclass(frozen=True)
class LayoutPlan:
    """Layout of every activation, and for every node (by its output) the layouts it wants."""

    layouts: Mapping[str, Layout]
    placements: Mapping[str, Placement]


LayoutRule: TypeAlias = Callable[[Node, Given], Placement]


def plan_layouts(graph: Graph) -> LayoutPlan:
    """Lay out every activation of `graph`, rank-4 inputs channels last."""
    layouts = {value.name: default_layout(value.type.rank) for value in graph.inputs}
    reorderable = _reorderable(graph)
    placements: dict[str, Placement] = {}
    for node in graph.nodes:
        given = Given(
            tuple(layouts.get(name) for name in node.inputs),
            tuple(graph.types[name].shape for name in node.inputs),
            graph.types[node.output].shape,
            node.output in reorderable,
        )
        placements[node.output] = LAYOUT_RULES[node.op](node, given)
        layouts[node.output] = placements[node.output].result
    return LayoutPlan(layouts, placements)


def output_layout(layout: Layout) -> Layout:
    """The layout in which a graph output leaves the file."""
    if layout.rank == 4 and layout in (CHANNELS_LAST, identity(4)):
        return layout
    return default_layout(layout.rank)


def _reorderable(graph: Graph) -> set[str]:
    """Activations read only by linear layers, and by elementwise ops whose results are such again."""
    found: set[str] = set()
    for name in reversed(graph.activations):
        readers = graph.consumers.get(name, ())
        if readers and name not in graph.outputs and all(_takes_any_order(graph, r, name, found) for r in readers):
            found.add(name)
    return found


def _takes_any_order(graph: Graph, reader: Node, name: str, found: set[str]) -> bool:
    if reader.op is Op.LINEAR:
        return True
    same_shape = graph.types[reader.output].shape == graph.types[name].shape
    return LAYOUT_RULES[reader.op] is _elementwise and same_shape and reader.output in found


def _channels_last(node: Node, given: Given) -> Placement:
    return Placement((CHANNELS_LAST, *[None] * (len(node.inputs) - 1)), CHANNELS_LAST)


def _elementwise(node: Node, given: Given) -> Placement:
    """Every input in the layout of the largest activation, broadcast ones as far as they have its axes."""
    rank = len(given.result)
    chosen = given.largest().expanded(rank)
    shapes = [(1,) * (rank - len(shape)) + shape for shape in given.shapes]
    return Placement(tuple(chosen.fitted(shape) for shape in shapes), chosen)


def _batch_norm(node: Node, given: Given) -> Placement:
    return Placement((given.layout, None, None, None, None), given.layout)


def _linear(node: Node, given: Given) -> Placement:
    layout = given.layouts[0] or given.layout
    last = layout.rank - 1
    if layout.flattened and layout.flattened.axis != last:
        layout = layout.plain()
    layout = _with_last(layout, last)
    return Placement((layout, *[None] * (len(node.inputs) - 1)), layout.plain())


def _softmax(node: Node, given: Given) -> Placement:
    layout = _with_last(given.layout, node["axis"])
    return Placement((layout,), layout)


def _with_last(layout: Layout, axis: int) -> Layout:
    """`layout`, or the nearest usual one that has `axis` last."""
    if layout.order[-1] == axis:
        return layout
    if axis == layout.rank - 1:
        return identity(layout.rank)
    return Layout((*(other for other in layout.order if other != axis), axis))


def _any_order(node: Node, given: Given) -> Placement:
    return Placement((given.layout,), given.layout)


def _mean(node: Node, given: Given) -> Placement:
    if node["keepdim"]:
        return Placement((given.layout,), given.layout)
    kept = [axis for axis in range(given.layout.rank) if axis not in node["axes"]]
    return Placement((given.layout,), Layout(tuple(kept.index(axis) for axis in given.layout.order if axis in kept)))


def _permute(node: Node, given: Given) -> Placement:
    return Placement((given.layout,), Layout(tuple(node["axes"].index(axis) for axis in given.layout.order)))


def _concat(node: Node, given: Given) -> Placement:
    chosen = given.largest().plain()
    return Placement((chosen,) * len(node.inputs), chosen)


def _reshape(node: Node, given: Given) -> Placement:
    before, after, layout = given.shapes[0], given.result, given.layout
    physical = [axis for axis in layout.order if before[axis] != 1]
    groups = sorted(_matching_axes(before, after), key=lambda group: min(map(physical.index, group[0])))
    result = Layout(_with_unit_axes([axis for _, targets in groups for axis in targets], after))
    scattered = [group for group in groups if not _adjoin(physical, group[0])]
    if not scattered:
        return Placement((layout,), result)
    sources, targets = scattered[0]
    stored = [axis for axis in physical if axis in sources]
    if given.may_reorder and len(scattered) == len(targets) == 1 and _adjoin(physical, stored):
        order = tuple(sources.index(axis) for axis in stored)
        flat = Flattened(targets[0], tuple(before[axis] for axis in sources), order)
        return Placement((layout,), Layout(result.order, flat))
    wanted = _with_unit_axes([axis for sources, _ in groups for axis in sources], before)
    return Placement((Layout(wanted),), result)


def _matching_axes(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Runs of axes of `before` and `after` (none of size 1) that hold the same elements, in logical order."""
    sources = [axis for axis, size in enumerate(before) if size != 1]
    targets = [axis for axis, size in enumerate(after) if size != 1]
    groups = []
    while sources and targets:
        left, right = [sources.pop(0)], [targets.pop(0)]
        while (have := prod(before[axis] for axis in left)) != (want := prod(after[axis] for axis in right)):
            if have < want:
                left.append(sources.pop(0))
            else:
                right.append(targets.pop(0))
        groups.append((left, right))
    return groups


def _adjoin(physical: Sequence[int], axes: Sequence[int]) -> bool:
    """Whether `axes` lie next to each other, in this order."""
    start = physical.index(axes[0])
    return list(physical[start : start + len(axes)]) == list(axes)


def _with_unit_axes(order: Sequence[int], shape: Shape) -> tuple[int, ...]:
    """`order` with the axes of size 1, which may stand anywhere: as in a usual layout where one fits."""
    for usual in (default_layout(len(shape)), identity(len(shape))):
        if [axis for axis in usual.order if shape[axis] != 1] == list(order):
            return usual.order
    return (*(axis for axis, size in enumerate(shape) if size == 1), *order)


LAYOUT_RULES: dict[Op, LayoutRule] = {
    Op.CONV2D: _channels_last,
    Op.DEPTHWISE_CONV2D: _channels_last,
    Op.LINEAR: _linear,
    Op.BATCH_NORM: _batch_norm,
    Op.RELU: _elementwise,
    Op.RELU6: _elementwise,
    Op.LEAKY_RELU: _elementwise,
    Op.SIGMOID: _elementwise,
    Op.TANH: _elementwise,
    Op.HARDSWISH: _elementwise,
    Op.SOFTMAX: _softmax,
    Op.ADD: _elementwise,
    Op.SUB: _elementwise,
    Op.MUL: _elementwise,
    Op.MAX_POOL2D: _channels_last,
    Op.AVG_POOL2D: _channels_last,
    Op.MEAN: _mean,
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.CONCAT: _concat,
    Op.PAD: _any_order,
    Op.SLICE: _any_order,
}
