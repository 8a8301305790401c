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

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from toolchain.formats.tflite.layout import CHANNELS_LAST, Flattened, Layout, Shape, default_layout, identity
from toolchain.graph import RECURRENT, Graph, Node, Op


@dataclass(frozen=True)
class Given:
    """What a rule decides from: layouts (None: a constant) and shapes of the inputs, shape of the result."""

    layouts: tuple[Layout | None, ...]
    shapes: tuple[Shape, ...]
    result: Shape
    may_reorder: bool
    """Whether all that reads the result takes a flattened axis in any order."""
    becomes: Shape | None = None
    """The image `(C, H, W)` that all that reads the result makes of its last axis, if it does."""
    prefers_last: bool = False
    """Of several operands that are alike in size, the last lends its layout, not the first."""

    @property
    def layout(self) -> Layout:
        """Of the first input, without an order along a flattened axis."""
        return (self.layouts[0] or identity(len(self.shapes[0]))).plain()

    def largest(self) -> Layout:
        """Of the activation with the most elements, the first of several (or the last)."""
        known = [(prod(s), layout) for s, layout in zip(self.shapes, self.layouts, strict=True) if layout]
        if self.prefers_last:
            known.reverse()
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


def lay_out(graph: Graph, settled: Collection[str] = (), turned: Collection[str] = ()) -> LayoutPlan:
    """Lay out every activation of `graph`; inputs of rank 4, and sequences that are convolved, channels last.

    `settled` are results of permutes and reshapes that lie in the file as they do in torch, so that all that follows
    finds them so; `turned` those of elementwise ops that lie as the last of their largest operands does.
    """
    layouts = {value.name: _input_layout(graph, value.name) for value in graph.inputs}
    reorderable, images = _reorderable(graph), _future_images(graph)
    placements: dict[str, Placement] = {}
    for node in graph.nodes:
        given = Given(
            tuple(layouts.get(name) for name in node.inputs),
            tuple(graph.types[name].shape for name in node.inputs),
            graph.types[node.output].shape,
            node.output in reorderable,
            images.get(node.output),
            node.output in turned,
        )
        rule = _settled if node.output in settled else LAYOUT_RULES[node.op]
        placements[node.output] = rule(node, given)
        layouts[node.output] = placements[node.output].result
    return LayoutPlan(layouts, placements)


def output_layout(layout: Layout) -> Layout:
    """The layout in which a graph output leaves the file."""
    if layout in (CHANNELS_LAST, SEQUENCE_CHANNELS_LAST, identity(4)):
        return layout
    return default_layout(layout.rank)


SEQUENCE_CHANNELS_LAST = Layout((0, 2, 1))


def _input_layout(graph: Graph, name: str) -> Layout:
    if graph.types[name].rank == 3 and _is_convolved(graph, name):
        return SEQUENCE_CHANNELS_LAST
    return default_layout(graph.types[name].rank)


def _is_convolved(graph: Graph, name: str) -> bool:
    """Whether windows move along the last axis of a sequence `(N, C, L)`, or of what keeps its layout."""
    found, pending = {name}, [name]
    while pending:
        read = pending.pop()
        shape = graph.types[read].shape
        for reader in graph.consumers.get(read, ()):
            rule = LAYOUT_RULES[reader.op]
            if rule is _channels_last:
                return True
            as_image = rule is _reshape and len(shape) == 3 and reader["shape"] == (*shape[:2], 1, shape[2])
            kept = rule in (_elementwise, _any_order, _concat) and graph.types[reader.output].rank == len(shape)
            if (as_image or kept) and reader.output not in found:
                found.add(reader.output)
                pending.append(reader.output)
    return False


def _future_images(graph: Graph) -> dict[str, Shape]:
    """Vectors `(N, F)` that are only read as images `(N, C, H, W)` for windows, maybe after functions of their
    elements: the linear layer that makes them may put the channels last."""
    found: dict[str, Shape] = {}
    for name in reversed(graph.activations):
        readers = graph.consumers.get(name, ())
        images = {_image_of(graph, reader, found) for reader in readers}
        image = next(iter(images), None)
        if len(images) == 1 and image is not None and graph.types[name].rank == 2 and name not in graph.outputs:
            found[name] = image
    return found


def _image_of(graph: Graph, reader: Node, found: Mapping[str, Shape]) -> Shape | None:
    if reader.op is Op.RESHAPE and len(reader["shape"]) == 4 and _is_convolved(graph, reader.output):
        batch, *image = reader["shape"]
        return tuple(image) if batch == graph.types[reader.inputs[0]].shape[0] else None
    alone = sum(not graph.is_constant(name) for name in reader.inputs) == 1
    return found.get(reader.output) if alone and LAYOUT_RULES[reader.op] is _elementwise else None


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
    result = layout.plain()
    if given.becomes:
        result = Layout(result.order, Flattened(last, given.becomes, (1, 2, 0)))
    return Placement((layout, *[None] * (len(node.inputs) - 1)), result)


def _recurrent(node: Node, given: Given) -> Placement:
    """Batch, time, channels."""
    states = len(node.inputs) - 5
    return Placement((identity(3), *[None] * 4, *[identity(2)] * states), identity(len(given.result)))


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


def _norm(node: Node, given: Given) -> Placement:
    """Weights lie along the same axes, as broadcast operands do."""
    rank = given.layout.rank
    shapes = [(1,) * (rank - len(shape)) + shape for shape in given.shapes]
    return Placement(tuple(given.layout.fitted(shape) for shape in shapes), given.layout)


def _argument(node: Node, given: Given) -> Placement:
    if node["keepdim"]:
        return Placement((given.layout,), given.layout)
    kept = [axis for axis in range(given.layout.rank) if axis != node["axis"]]
    order = (kept.index(axis) for axis in given.layout.order if axis in kept)
    return Placement((given.layout,), Layout(tuple(order)))


def _matmul(node: Node, given: Given) -> Placement:
    """The last two axes of an operand may lie either way round, those of the batch lie in front."""
    wanted = []
    for layout, shape in zip(given.layouts, given.shapes, strict=True):
        rank = len(shape)
        plain = identity(rank) if layout is None else layout.plain()
        swapped = Layout((*range(rank - 2), rank - 1, rank - 2))
        wanted.append(swapped if plain == swapped else identity(rank))
    return Placement(tuple(wanted), identity(len(given.result)))


def _permute(node: Node, given: Given) -> Placement:
    return Placement((given.layout,), Layout(tuple(node["axes"].index(axis) for axis in given.layout.order)))


def _settled(node: Node, given: Given) -> Placement:
    order = tuple(node["axes"]) if node.op is Op.PERMUTE else identity(len(given.shapes[0])).order
    return Placement((Layout(order),), identity(len(given.result)))


def _concat(node: Node, given: Given) -> Placement:
    chosen = given.largest().plain()
    return Placement((chosen,) * len(node.inputs), chosen)


def _gather(node: Node, given: Given) -> Placement:
    """The axes of the indices, in their own order, in the place of the axis they index."""
    layout, indices, axis = given.layout, identity(len(given.shapes[1])), node["axis"]
    more = indices.rank - 1
    order: list[int] = []
    for kept in layout.order:
        if kept == axis:
            order += range(axis, axis + indices.rank)
        else:
            order.append(kept if kept < axis else kept + more)
    return Placement((layout, indices), Layout(tuple(order)))


def _gather_elements(node: Node, given: Given) -> Placement:
    return Placement((given.layout, given.layout), given.layout)


def _expand(node: Node, given: Given) -> Placement:
    chosen = given.layout.expanded(len(given.result))
    return Placement((chosen,), chosen)


def _reshape(node: Node, given: Given) -> Placement:
    before, after, layout = given.shapes[0], given.result, given.layout
    ordered = given.layouts[0]
    if ordered and ordered.flattened and len(after) == 4 and ordered.flattened == Flattened(1, after[1:], (1, 2, 0)):
        return Placement((ordered,), CHANNELS_LAST)
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
    groups.sort(key=lambda group: max(map(physical.index, group[0])))  # what lies last, as channels do, stays last
    wanted = _with_unit_axes([axis for sources, _ in groups for axis in sources], before)
    result = Layout(_with_unit_axes([axis for _, targets in groups for axis in targets], after))
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
    placed = list(order)
    for axis, size in enumerate(shape):
        if size == 1:  # behind its neighbour, with which it may be merged once it is expanded
            placed.insert(placed.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(placed)


_ELEMENTWISE = (
    *(Op.PRELU, Op.ELU, Op.GELU, Op.SOFTPLUS, Op.MISH, Op.CLAMP, Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.ABS, Op.NEG),
    *(Op.SIN, Op.COS, Op.FLOOR, Op.CEIL, Op.ROUND, Op.SIGN, Op.ERF, Op.CAST, Op.REQUANTIZE, Op.DIV, Op.POW, Op.MINIMUM),
    *(Op.MAXIMUM, Op.EQUAL, Op.NOT_EQUAL, Op.LESS, Op.LESS_EQUAL, Op.GREATER, Op.GREATER_EQUAL, Op.LOGICAL_AND),
    *(Op.LOGICAL_OR, Op.LOGICAL_NOT, Op.WHERE),
)

LAYOUT_RULES: dict[Op, LayoutRule] = {
    Op.CONV2D: _channels_last,
    Op.DEPTHWISE_CONV2D: _channels_last,
    Op.LINEAR: _linear,
    **dict.fromkeys(RECURRENT, _recurrent),
    Op.BATCH_NORM: _batch_norm,
    Op.RELU: _elementwise,
    Op.RELU6: _elementwise,
    Op.LEAKY_RELU: _elementwise,
    Op.SIGMOID: _elementwise,
    Op.TANH: _elementwise,
    Op.HARDSWISH: _elementwise,
    Op.SOFTMAX: _softmax,
    Op.LOG_SOFTMAX: _softmax,
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    Op.ADD: _elementwise,
    Op.SUB: _elementwise,
    Op.MUL: _elementwise,
    Op.MAX_POOL2D: _channels_last,
    Op.SPACE_TO_DEPTH: _channels_last,
    Op.DEPTH_TO_SPACE: _channels_last,
    Op.RESIZE: _channels_last,
    Op.CONV_TRANSPOSE2D: _channels_last,
    Op.AVG_POOL2D: _channels_last,
    **dict.fromkeys((Op.MEAN, Op.SUM, Op.REDUCE_MAX, Op.REDUCE_MIN), _mean),
    **dict.fromkeys((Op.ARGMAX, Op.ARGMIN), _argument),
    **dict.fromkeys((Op.LAYER_NORM, Op.RMS_NORM), _norm),
    **dict.fromkeys((Op.TOPK_VALUES, Op.TOPK_INDICES), _softmax),
    Op.CUMSUM: _any_order,
    Op.MATMUL: _matmul,
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.CONCAT: _concat,
    Op.PAD: _any_order,
    Op.SLICE: _any_order,
    Op.GATHER: _gather,
    Op.GATHER_ELEMENTS: _gather_elements,
    Op.EXPAND: _expand,
}

ALIKE: frozenset[LayoutRule] = frozenset({_elementwise, _concat})
"""Rules by which all operands lie as one of them does."""
