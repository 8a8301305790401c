"""What selects by index: with tensors in brackets, embeddings, gathers; and what overwrites a selection.

Indices that are known become slices where they lie evenly, else a gather along one axis. Several of them select from
the axes they index merged into one: `x[:, i, j]` is place `i * W + j` of H * W.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.images import join, take
from toolchain.engine.tracing.rules.logic import where
from toolchain.engine.tracing.rules.rule import Rule, axis_of
from toolchain.engine.tracing.rules.shape import cut, expand, permute
from toolchain.graph import DType, Op

Indices = list[tuple[int, str]]
"""(axis, tensor of integers) for every indexed axis."""

_NEVER_NEGATIVE = frozenset({Op.ARGMAX, Op.ARGMIN, Op.TOPK_INDICES})


def _index(b: GraphBuilder, x: str, places: Sequence[str | None]) -> str:
    """`x[:, i]` and its like."""
    indices = _without_masks(b, x, places)
    if len(indices) == 1:
        axis, index = indices[0]
        return _take_index(b, x, axis, index)
    if (paired := _paired(b, x, indices)) is not None:
        return paired
    axes = [axis for axis, _ in indices]
    adjoin = axes == list(range(axes[0], axes[0] + len(axes)))
    at = axes[0] if adjoin else 0  # numpy's rule: in front, where a slice lies between
    others = [axis for axis in range(len(b.shapes[x])) if axis not in axes]
    x = permute(b, x, (*others[:at], *axes, *others[at:]))
    shape, count = b.shapes[x], len(axes)
    indexed = shape[at : at + count]
    merged = b.reshape(x, (*shape[:at], prod(indexed), *shape[at + count :]))
    return _take_index(b, merged, at, _flat(b, [index for _, index in indices], indexed))


def _without_masks(b: GraphBuilder, x: str, places: Sequence[str | None]) -> Indices:
    """Masks, which must be known, as the places where they hold; `x` has an axis for each of theirs."""
    found: Indices = []
    axis = 0
    for place in places:
        if place is None:
            axis += 1
        elif b.types[place].dtype in (DType.BOOL, DType.UINT8):
            mask = b.known(place, "the mask, as the number of selected elements is the result's shape")
            for column in np.nonzero(mask):
                found.append((axis, b.constant(column.astype(np.int64))))
                axis += 1
        else:
            found.append((axis, place))
            axis += 1
    return found


def _take_index(b: GraphBuilder, x: str, axis: int, index: str) -> str:
    """The places `index`, of any rank and counted from the end where negative, along `axis`."""
    size = b.shapes[x][axis]
    known = b.value_of(index)
    if known is None:
        return b.add(Op.GATHER, x, _from_the_front(b, index, size), axis=axis)
    if known.size and not -size <= known.min() <= known.max() < size:
        raise CannotLower(f"an index is out of bounds for an axis of {size}")
    places = np.where(known < 0, known + size, known)
    if places.size == 0:
        raise CannotLower("the result is empty")
    if places.ndim == 1:
        return take(b, x, axis, places.tolist())
    return b.add(Op.GATHER, x, b.constant(places.astype(np.int32)), axis=axis)


def _from_the_front(b: GraphBuilder, index: str, size: int) -> str:
    producer = b.producer(index)
    if producer is not None and producer.op in _NEVER_NEGATIVE:
        return index
    dtype = b.types[index].dtype
    negative = b.add(Op.LESS, index, b.tensor(0, dtype))
    return b.add(Op.WHERE, negative, b.add(Op.ADD, index, b.tensor(size, dtype)), index)


def _flat(b: GraphBuilder, indices: Sequence[str], sizes: Sequence[int]) -> str:
    """Places along the axes of `sizes` merged into one; known ones are counted at once."""
    known = [b.value_of(index) for index in indices]
    if all(value is not None for value in known):
        places = [np.where(v < 0, v + s, v) for v, s in zip(known, sizes, strict=True) if v is not None]
        if any(((p < 0) | (p >= s)).any() for p, s in zip(places, sizes, strict=True)):
            raise CannotLower(f"an index is out of bounds for axes of {tuple(sizes)}")
        return b.constant(np.asarray(np.ravel_multi_index(np.broadcast_arrays(*places), tuple(sizes)), np.int32))
    total: str | None = None
    for step, (index, size) in enumerate(zip(indices, sizes, strict=True)):
        stride = prod(sizes[step + 1 :])
        place = _from_the_front(b, b.cast(index, DType.INT64), size)
        part = place if stride == 1 else b.add(Op.MUL, place, b.tensor(stride, DType.INT64))
        total = part if total is None else b.add(Op.ADD, total, part)
    assert total is not None
    return total


def _paired(b: GraphBuilder, x: str, indices: Indices) -> str | None:
    """`x[arange(N), i]` takes one place of each sample: a gather along axis 1, whose samples stay apart."""
    (first, rows), (second, index), *more = indices
    count, *others = b.shapes[x]
    known = b.value_of(rows)
    if more or (first, second) != (0, 1) or known is None or b.value_of(index) is not None:
        return None
    if b.shapes[index] != (count,) or not np.array_equal(known, np.arange(count)):
        return None
    place = _from_the_front(b, b.cast(index, DType.INT64), others[0])
    column = b.reshape(place, (count, *[1] * len(others)))
    taken = _gather(b, x, 1, expand(b, column, (count, 1, *others[1:])))
    return b.reshape(taken, (count, *others[1:]))


def _index_select(b: GraphBuilder, x: str, axis: int, index: str) -> str:
    axis = axis_of(axis, len(b.shapes[x]))
    if b.value_of(index) is not None:
        return _take_index(b, x, axis, index)
    return b.add(Op.GATHER, x, b.reshape(index, (b.types[index].elements,)), axis=axis)


def _gather(b: GraphBuilder, x: str, axis: int, index: str, sparse_grad: bool = False) -> str:
    axis = axis_of(axis, len(b.shapes[x]))
    index = b.cast(index, DType.INT64)
    uniform = _uniform(b, index, axis, b.shapes[x])
    if uniform is not None:
        return take(b, x, axis, uniform)
    known = b.value_of(index)
    return b.add(Op.GATHER_ELEMENTS, x, index, axis=axis) if known is None else _known_elements(b, x, axis, known)


def _known_elements(b: GraphBuilder, x: str, axis: int, index: np.ndarray) -> str:
    """One gather along all axes but the first as one, where every sample takes the same places, else along all."""
    shape = b.shapes[x]
    places = [*np.indices(index.shape)]
    places[axis] = index
    apart = axis > 0 and len(index) == shape[0] and bool((index == index[:1]).all())
    keep = 1 if apart else 0
    sizes, at = shape[keep:], [place[0] if apart else place for place in places[keep:]]
    flat = np.ravel_multi_index(tuple(at), sizes).astype(np.int32)
    return b.add(Op.GATHER, b.reshape(x, (*shape[:keep], prod(sizes))), b.constant(flat), axis=keep)


def _uniform(b: GraphBuilder, index: str, axis: int, shape: Sequence[int]) -> list[int] | None:
    """The places along `axis` where they are known and the same everywhere else."""
    known = b.value_of(index)
    if known is None or known.shape[:axis] + known.shape[axis + 1 :] != (*shape[:axis], *shape[axis + 1 :]):
        return None
    lines = np.moveaxis(known, axis, -1).reshape(-1, known.shape[axis])
    return lines[0].tolist() if known.size and (lines == lines[0]).all() else None


def _take_along_dim(b: GraphBuilder, x: str, index: str, axis: int | None = None) -> str:
    if axis is None:
        x, index, axis = b.reshape(x, (b.types[x].elements,)), b.reshape(index, (b.types[index].elements,)), 0
    axis = axis_of(axis, len(b.shapes[x]))
    source, places = list(b.shapes[x]), list(b.shapes[index])
    shape = list(np.broadcast_shapes(*((*s[:axis], 1, *s[axis + 1 :]) for s in (source, places))))
    shape[axis] = places[axis]
    index = expand(b, index, shape)
    shape[axis] = source[axis]
    return _gather(b, expand(b, x, shape), axis, index)


def _embedding(b: GraphBuilder, table: str, index: str, *_: Any) -> str:
    """Rows of a table; which of them is the padding matters to training alone."""
    return b.add(Op.GATHER, table, index, axis=0)


def _embedding_bag(b: GraphBuilder, table: str, index: str, offsets: str, *options: Any, **named: Any) -> list[str]:
    """Sums, means or maxima of as many rows each; torch gives index (N,) and where each bag begins."""
    order = ("scale_grad_by_freq", "mode", "sparse", "per_sample_weights", "include_last_offset", "padding_idx")
    given = dict(zip(order, options, strict=False)) | named
    starts = b.known(offsets, "where the bags begin")
    starts = starts[:-1] if given.get("include_last_offset") else starts
    total = b.types[index].elements
    size = total // max(len(starts), 1)
    if not np.array_equal(starts, np.arange(len(starts)) * size) or size * len(starts) != total:
        raise CannotLower("bags of different sizes are not supported: give indices of shape (N, bag)")
    if given.get("padding_idx", -1) not in (-1, None):
        raise CannotLower("a padding_idx, which makes bags of different sizes, is not supported")
    rows = b.add(Op.GATHER, table, b.reshape(index, (len(starts), size)), axis=0)
    if given.get("per_sample_weights") is not None:
        rows = b.add(Op.MUL, rows, b.reshape(given["per_sample_weights"], (len(starts), size, 1)))
    reduce = {0: Op.SUM, 1: Op.MEAN, 2: Op.REDUCE_MAX}[given.get("mode", 0)]
    return [b.add(reduce, rows, axes=(1,), keepdim=False)]


def _one_hot(b: GraphBuilder, x: str, classes: int = -1) -> str:
    """Where an index equals each of the classes."""
    if classes < 0:
        raise CannotLower("give it num_classes: without, the largest index of the data decides")
    dtype = b.types[x].dtype
    column = b.reshape(x, (*b.shapes[x], 1))
    return b.cast(b.add(Op.EQUAL, column, b.constant(np.arange(classes, dtype=dtype.numpy))), DType.INT64)


def overwrite(b: GraphBuilder, x: str, axis: int, places: Sequence[int], value: str) -> str:
    """`x` with its `places` along `axis`, each named once, replaced by those of `value`, which has the type of `x`."""
    size = b.shapes[x][axis]
    if not places:
        return x
    first, last = places[0], places[-1]
    if list(places) == list(range(first, last + 1)):
        behind = [cut(b, x, axis, last + 1, size)] if last + 1 < size else []
        return join(b, [*([cut(b, x, axis, 0, first)] if first else []), value, *behind], axis)
    origin = np.arange(size)
    origin[list(places)] = size + np.arange(len(places))
    return take(b, join(b, [x, value], axis), axis, origin.tolist())


def _slice_scatter(
    b: GraphBuilder, x: str, source: str, axis: int = 0, start: Any = None, stop: Any = None, step: int = 1
) -> str:
    axis = axis_of(axis, len(b.shapes[x]))
    places = range(b.shapes[x][axis])[slice(start, stop, step)]
    shape = (*b.shapes[x][:axis], len(places), *b.shapes[x][axis + 1 :])
    return overwrite(b, x, axis, places, expand(b, b.cast(source, b.types[x].dtype), shape))


def _select_scatter(b: GraphBuilder, x: str, source: str, axis: int, index: int) -> str:
    axis = axis_of(axis, len(b.shapes[x]))
    place = index % b.shapes[x][axis]
    shape = (*b.shapes[x][:axis], 1, *b.shapes[x][axis + 1 :])
    value = expand(b, b.cast(source, b.types[x].dtype), (*shape[:axis], *shape[axis + 1 :]))
    return overwrite(b, x, axis, (place,), b.reshape(value, shape))


def _copy(b: GraphBuilder, x: str, source: str, non_blocking: bool = False) -> str:
    return expand(b, b.cast(source, b.types[x].dtype), b.shapes[x])


def _index_put(b: GraphBuilder, x: str, places: Sequence[str | None], value: str, accumulate: bool = False) -> str:
    """`x[:, i] = value`, for indices that are known and masks."""
    if accumulate:
        raise CannotLower("adding to indexed places is not supported")
    value = b.cast(value, b.types[x].dtype)
    masks = [p for p in places if p is not None and b.types[p].dtype is DType.BOOL]
    if len(masks) == 1 and b.value_of(masks[0]) is None:
        return _put_where(b, x, places, masks[0], value)
    indices = _without_masks(b, x, places)
    known = [(axis, b.known(index, "the indices that are written to")) for axis, index in indices]
    if b.types[value].elements == 1:
        mask = np.zeros(b.shapes[x], bool)
        at: list[Any] = [slice(None)] * mask.ndim
        for axis, index in known:
            at[axis] = index
        mask[tuple(at)] = True
        return where(b, b.constant(mask), b.reshape(value, ()), x)
    (axis, index), *more = known
    wanted = (*b.shapes[x][:axis], *index.shape, *b.shapes[x][axis + 1 :])
    order = [int(place) % b.shapes[x][axis] for place in index.reshape(-1)]
    if more or index.ndim != 1 or len(set(order)) != len(order):
        raise CannotLower("a tensor is written to several axes at once, or twice to a place: use torch.where")
    value = expand(b, value, wanted)
    ascending = np.argsort(order).tolist()
    return overwrite(b, x, axis, sorted(order), take(b, value, axis, ascending))


def _scatter(b: GraphBuilder, x: str, axis: int, index: str, source: Any, **options: Any) -> str:
    """`x` with the places `index` along `axis` replaced by a number or the places of `source` under them."""
    if options:
        raise CannotLower("a reduction is not supported")
    axis = axis_of(axis, len(b.shapes[x]))
    known = b.known(index, "the indices that are written to")
    shape, size = b.shapes[x], b.types[x].elements
    places: list[np.ndarray] = list(np.indices(known.shape))
    places[axis] = known
    flat = np.ravel_multi_index(tuple(places), shape).reshape(-1)
    if not isinstance(source, str):
        mask = np.zeros(size, bool)
        mask[flat] = True
        return where(b, b.constant(mask.reshape(shape)), source, x)
    if len(np.unique(flat)) < len(flat):
        raise CannotLower("a place is written to twice")
    read = source
    for along, length in enumerate(known.shape):
        read = cut(b, read, along, 0, length)
    both = join(b, [b.reshape(x, (size,)), b.reshape(b.cast(read, b.types[x].dtype), (known.size,))], 0)
    origin = np.arange(size)
    origin[flat] = size + np.arange(known.size)
    return b.reshape(take(b, both, 0, origin.tolist()), shape)


def _index_fill(b: GraphBuilder, x: str, axis: int, index: str, value: Any) -> str:
    mask = np.zeros(b.shapes[x][axis], bool)
    mask[b.known(index, "the indices that are written to")] = True
    axis = axis_of(axis, len(b.shapes[x]))
    return where(b, b.constant(mask.reshape(-1, *[1] * (len(b.shapes[x]) - 1 - axis))), value, x)


def _put_where(b: GraphBuilder, x: str, places: Sequence[str | None], mask: str, value: str) -> str:
    if b.types[value].elements != 1:
        raise CannotLower("the number of selected elements depends on the data: use torch.where")
    axis = next(position for position, place in enumerate(places) if place is not None)
    rank = len(b.shapes[x])
    shape = (*[1] * axis, *b.shapes[mask], *[1] * (rank - axis - len(b.shapes[mask])))
    return where(b, b.reshape(mask, shape), b.reshape(value, ()), x)


INDEXING: dict[str, Rule] = {
    "index": _index,
    "index_select": _index_select,
    "gather": _gather,
    "take_along_dim": _take_along_dim,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
    "one_hot": _one_hot,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "copy": _copy,
    **dict.fromkeys(("index_put", "_unsafe_index_put"), _index_put),
    "_unsafe_index": _index,
    "scatter": _scatter,
    "index_fill": _index_fill,
}
