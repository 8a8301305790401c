"""What moves elements or repeats them: permutes, joins, cuts, expansions, rolls and flips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.images import join, take
from toolchain.engine.tracing.rules.logic import where
from toolchain.engine.tracing.rules.rule import Rule, axis_of
from toolchain.graph import DType, Op

_JOINED_COPIES = 8
"""How many copies of a tensor are joined one by one; more are made by expanding a new axis."""


def permute(b: GraphBuilder, x: str, axes: Sequence[int]) -> str:
    """`x` with its axes in another order; itself where they keep theirs."""
    rank = len(b.shapes[x])
    order = tuple(axis_of(a, rank) for a in axes)
    return x if order == tuple(range(rank)) else b.add(Op.PERMUTE, x, axes=order)


def expand(b: GraphBuilder, x: str, shape: Sequence[int]) -> str:
    """`x` broadcast to `shape`; itself where it has that shape."""
    wanted = tuple(int(size) for size in shape)
    return x if b.shapes[x] == wanted else b.add(Op.EXPAND, x, shape=wanted)


def cut(b: GraphBuilder, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
    """A slice of `x`; itself where that is all of it."""
    if (start, step) == (0, 1) and stop == b.shapes[x][axis]:
        return x
    return b.add(Op.SLICE, x, axes=(axis,), starts=(start,), stops=(max(stop, start),), steps=(step,))


def _transpose(b: GraphBuilder, x: str, first: int = 0, second: int = 1) -> str:
    axes = list(range(len(b.shapes[x])))
    if len(axes) > 1:
        axes[first], axes[second] = axes[second], axes[first]
    return permute(b, x, axes)


def _last_two(b: GraphBuilder, x: str) -> str:
    return _transpose(b, x, -2, -1)


def _reversed_axes(b: GraphBuilder, x: str) -> str:
    return permute(b, x, tuple(reversed(range(len(b.shapes[x])))))


def _movedim(b: GraphBuilder, x: str, source: int | Sequence[int], destination: int | Sequence[int]) -> str:
    order = np.moveaxis(np.empty([2] * len(b.shapes[x])), source, destination)
    places = np.empty([2] * len(b.shapes[x])).strides
    return permute(b, x, [places.index(stride) for stride in order.strides])


def cat(b: GraphBuilder, tensors: Sequence[str], axis: int = 0) -> str:
    """Joined along `axis`; what is empty is left out, and other element types become the result's."""
    dtype = b.wanted[0].dtype if b.wanted else b.types[tensors[0]].dtype
    full = [b.cast(t, dtype) for t in tensors if b.types[t].elements]
    if not full:
        raise CannotLower("the result is empty")
    return join(b, full, axis_of(axis, len(b.shapes[full[0]])))


def stack(b: GraphBuilder, tensors: Sequence[str], axis: int = 0) -> str:
    """Joined along a new axis."""
    axis = axis_of(axis, len(b.shapes[tensors[0]]) + 1)
    wide = [b.reshape(t, (*b.shapes[t][:axis], 1, *b.shapes[t][axis:])) for t in tensors]
    return cat(b, wide, axis)


def _stacked(rank: int, axis: int, column: bool = False) -> Rule:
    """hstack and its like: joined along `axis` after each has at least `rank` axes."""

    def rule(b: GraphBuilder, tensors: Sequence[str]) -> str:
        wide = [_at_least(b, t, rank, column) for t in tensors]
        along = 0 if rank == 1 and len(b.shapes[wide[0]]) == 1 else axis
        return cat(b, wide, along)

    return rule


def _at_least(b: GraphBuilder, x: str, rank: int, column: bool) -> str:
    shape = b.shapes[x]
    if len(shape) >= rank:
        return x
    if column:
        return b.reshape(x, (*shape, 1) if shape else (1, 1))
    front = {(0, 1): (1,), (0, 2): (1, 1), (1, 2): (1, *shape), (0, 3): (1, 1, 1), (1, 3): (1, *shape, 1)}
    return b.reshape(x, front.get((len(shape), rank), (*shape, 1)))


def _slice(b: GraphBuilder, x: str, axis: int = 0, start: Any = None, stop: Any = None, step: int = 1) -> str:
    axis = axis_of(axis, len(b.shapes[x]))
    start, stop, _ = slice(start, stop).indices(b.shapes[x][axis])
    return cut(b, x, axis, start, stop, step)


def select(b: GraphBuilder, x: str, axis: int, index: int) -> str:
    """One place along `axis`, which is gone then."""
    shape = b.shapes[x]
    axis = axis_of(axis, len(shape))
    index %= shape[axis]
    taken = cut(b, x, axis, index, index + 1)
    return b.reshape(taken, shape[:axis] + shape[axis + 1 :])


def _narrow(b: GraphBuilder, x: str, axis: int, start: int, length: int) -> str:
    axis = axis_of(axis, len(b.shapes[x]))
    start = start if start >= 0 else start + b.shapes[x][axis]
    return cut(b, x, axis, start, start + length)


def _cut_at(b: GraphBuilder, x: str, axis: int, bounds: Sequence[int]) -> list[str]:
    return [cut(b, x, axis, int(start), int(stop)) for start, stop in pairwise(bounds)]


def _split(b: GraphBuilder, x: str, sizes: int | Sequence[int], axis: int = 0) -> list[str]:
    axis = axis_of(axis, len(b.shapes[x]))
    size = b.shapes[x][axis]
    if isinstance(sizes, int):
        return _cut_at(b, x, axis, [*range(0, size, max(sizes, 1)), size])
    return _cut_at(b, x, axis, np.cumsum([0, *sizes]).tolist())


def _chunk(b: GraphBuilder, x: str, chunks: int, axis: int = 0) -> list[str]:
    return _split(b, x, ceil(b.shapes[x][axis] / chunks), axis)


def _tensor_split(b: GraphBuilder, x: str, places: Any, axis: int = 0) -> list[str]:
    """Into a number of parts whose sizes differ by one at most, or at places."""
    axis = axis_of(axis, len(b.shapes[x]))
    size = b.shapes[x][axis]
    if isinstance(places, str):
        places = b.known(places, "where to split").tolist()
    if isinstance(places, int):
        sizes = [size // places + (part < size % places) for part in range(places)]
        return _cut_at(b, x, axis, np.cumsum([0, *sizes]).tolist())
    bounds = [slice(None, place).indices(size)[1] for place in places]
    return [cut(b, x, axis, start, max(stop, start)) for start, stop in zip([0, *bounds], [*bounds, size], strict=True)]


def _split_along(axis: int) -> Rule:
    return lambda b, x, places: _tensor_split(b, x, places, 0 if len(b.shapes[x]) == 1 else axis)


def _unbind(b: GraphBuilder, x: str, axis: int = 0) -> list[str]:
    return [select(b, x, axis, index) for index in range(b.shapes[x][axis])]


def _expand(b: GraphBuilder, x: str, *_: Any, **__: Any) -> str:
    """expand and expand_as: the result's shape says all."""
    return expand(b, x, b.wanted[0].shape)


def _broadcast_tensors(b: GraphBuilder, tensors: Sequence[str]) -> list[str]:
    return [expand(b, x, kind.shape) for x, kind in zip(tensors, b.wanted, strict=True)]


def _meshgrid(b: GraphBuilder, tensors: Sequence[str], indexing: str = "ij") -> list[str]:
    rank, results = len(tensors), []
    for place, (x, kind) in enumerate(zip(tensors, b.wanted, strict=True)):
        axis = {0: 1, 1: 0}.get(place, place) if indexing == "xy" and rank > 1 else place
        along = [b.types[x].elements if other == axis else 1 for other in range(rank)]
        results.append(expand(b, b.reshape(x, along), kind.shape))
    return results


def _repeat(b: GraphBuilder, x: str, repeats: Sequence[int]) -> str:
    """The whole tensor again and again along each axis: repeat and tile."""
    shape = b.shapes[x]
    repeats = [1] * (len(shape) - len(repeats)) + [int(r) for r in repeats]
    wide = (1,) * (len(repeats) - len(shape)) + shape
    x = x if wide == shape else b.reshape(x, wide)
    x = expand(b, x, [r if size == 1 else size for size, r in zip(wide, repeats, strict=True)])
    for axis, (size, count) in enumerate(zip(wide, repeats, strict=True)):
        if size > 1 < count:
            x = _copies(b, x, axis, count)
    if not b.types[x].elements:
        raise CannotLower("the result is empty")
    return x


def _copies(b: GraphBuilder, x: str, axis: int, count: int) -> str:
    shape = b.shapes[x]
    if count <= _JOINED_COPIES:
        return join(b, [x] * count, axis)
    column = b.reshape(x, (*shape[:axis], 1, *shape[axis:]))
    many = expand(b, column, (*shape[:axis], count, *shape[axis:]))
    return b.reshape(many, (*shape[:axis], count * shape[axis], *shape[axis + 1 :]))


def _repeat_interleave(b: GraphBuilder, x: str, repeats: Any, axis: int | None = None, output_size: Any = None) -> str:
    """Each place along `axis` again and again."""
    if axis is None:
        x, axis = b.reshape(x, (b.types[x].elements,)), 0
    axis = axis_of(axis, len(b.shapes[x]))
    counts = b.known(repeats, "how often to repeat") if isinstance(repeats, str) else repeats
    return take(b, x, axis, np.repeat(np.arange(b.shapes[x][axis]), counts).tolist())


def _flip(b: GraphBuilder, x: str, axes: Sequence[int]) -> str:
    for axis in (axis_of(a, len(b.shapes[x])) for a in axes):
        if b.shapes[x][axis] > 1:
            x = take(b, x, axis, list(reversed(range(b.shapes[x][axis]))))
    return x


def _rot90(b: GraphBuilder, x: str, times: int = 1, axes: Sequence[int] = (0, 1)) -> str:
    first, second = axes
    if times % 2:  # once or three times: a transpose, one of its axes turned round
        return _flip(b, _transpose(b, x, first, second), (first if times % 4 == 1 else second,))
    return _flip(b, x, axes) if times % 4 else x


def _roll(b: GraphBuilder, x: str, shifts: Any, axes: Sequence[int] = ()) -> str:
    shifts = [shifts] if isinstance(shifts, int) else list(shifts)
    if not axes:
        flat = b.reshape(x, (b.types[x].elements,))
        return b.reshape(_roll(b, flat, shifts, (0,)), b.shapes[x])
    for shift, given in zip(shifts, axes, strict=True):
        axis = axis_of(given, len(b.shapes[x]))
        size = b.shapes[x][axis]
        if place := -shift % size:
            x = join(b, [cut(b, x, axis, place, size), cut(b, x, axis, 0, place)], axis)
    return x


def _triangle(keep: Any) -> Rule:
    """tril and triu: zero on the other side of a diagonal."""

    def rule(b: GraphBuilder, x: str, diagonal: int = 0) -> str:
        mask = keep(np.ones(b.shapes[x][-2:], bool), diagonal)
        return where(b, b.constant(mask), x, 0)

    return rule


def _diagonal(b: GraphBuilder, x: str, offset: int = 0, first: int = 0, second: int = 1) -> str:
    rank = len(b.shapes[x])
    pair = (axis_of(first, rank), axis_of(second, rank))
    x = permute(b, x, (*(axis for axis in range(rank) if axis not in pair), *pair))
    *outer, rows, columns = b.shapes[x]
    start = offset if offset >= 0 else -offset * columns
    count = min(rows + min(offset, 0), columns - max(offset, 0))
    flat = b.reshape(x, (*outer, rows * columns))
    return take(b, flat, len(outer), [start + i * (columns + 1) for i in range(count)])


def _diag_embed(b: GraphBuilder, x: str, offset: int = 0, first: int = -2, second: int = -1) -> str:
    """The last axis along a diagonal of two new ones, zero elsewhere."""
    rank, size = len(b.shapes[x]) + 1, b.shapes[x][-1] + abs(offset)
    if b.wanted[0].dtype is DType.BOOL or (axis_of(first, rank), axis_of(second, rank)) != (rank - 2, rank - 1):
        raise CannotLower("only the last two axes can be the new ones, of a tensor of numbers")
    if offset:
        amounts = [0] * (2 * (rank - 1))
        amounts[rank - 2 if offset > 0 else -1] = abs(offset)
        x = b.add(Op.PAD, x, amounts=tuple(amounts))
    row = b.reshape(x, (*b.shapes[x][:-1], 1, size))
    return where(b, b.constant(np.eye(size, k=offset, dtype=bool)), row, 0)


def _unfold(b: GraphBuilder, x: str, axis: int, size: int, step: int) -> str:
    """Windows along `axis`; the places inside a window become the last axis."""
    shape = b.shapes[x]
    axis = axis_of(axis, len(shape))
    starts = np.arange(0, shape[axis] - size + 1, step, dtype=np.int32)
    windows = b.add(Op.GATHER, x, b.constant(starts[:, None] + np.arange(size, dtype=np.int32)), axis=axis)
    rank = len(shape) + 1
    return permute(b, windows, (*(a for a in range(rank) if a != axis + 1), axis + 1))


def _im2col(b: GraphBuilder, x: str, kernel: Any, dilation: Any, padding: Any, stride: Any) -> str:
    """(N, C, H, W) -> (N, C kH kW, windows)."""
    if len(b.shapes[x]) != 4:
        raise CannotLower("it takes a batch of images, (N, C, H, W)")
    top, left = padding
    if top or left:
        x = b.add(Op.PAD, x, amounts=(0, 0, top, left, 0, 0, top, left))
    for axis, (size, step, apart) in zip((2, 4), zip(kernel, stride, dilation, strict=True), strict=True):
        count = (b.shapes[x][axis] - apart * (size - 1) - 1) // step + 1
        places = apart * np.arange(size, dtype=np.int32)[:, None] + step * np.arange(count, dtype=np.int32)
        x = b.add(Op.GATHER, x, b.constant(places), axis=axis)
    batch, channels, height, rows, width, columns = b.shapes[x]
    x = permute(b, x, (0, 1, 2, 4, 3, 5))
    return b.reshape(x, (batch, channels * height * width, rows * columns))


SHAPE: dict[str, Rule] = {
    "permute": permute,
    **dict.fromkeys(("transpose", "t", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("mT", "mH", "adjoint", "matrix_H"), _last_two),
    "numpy_T": _reversed_axes,
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "stack": stack,
    "hstack": _stacked(1, 1),
    **dict.fromkeys(("vstack", "row_stack"), _stacked(2, 0)),
    "dstack": _stacked(3, 2),
    "column_stack": _stacked(2, 1, column=True),
    "slice": _slice,
    "select": select,
    "narrow": _narrow,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), _split),
    **dict.fromkeys(("chunk", "unsafe_chunk"), _chunk),
    "tensor_split": _tensor_split,
    "hsplit": _split_along(1),
    "vsplit": _split_along(0),
    "dsplit": _split_along(2),
    "unbind": _unbind,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    "broadcast_tensors": _broadcast_tensors,
    "meshgrid": _meshgrid,
    **dict.fromkeys(("repeat", "tile"), _repeat),
    "repeat_interleave": _repeat_interleave,
    "flip": _flip,
    "fliplr": lambda b, x: _flip(b, x, (1,)),
    "flipud": lambda b, x: _flip(b, x, (0,)),
    "rot90": _rot90,
    "roll": _roll,
    "tril": _triangle(np.tril),
    "triu": _triangle(np.triu),
    "diagonal": _diagonal,
    "diag_embed": _diag_embed,
    "unfold": _unfold,
    "im2col": _im2col,
}
