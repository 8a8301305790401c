"""Reductions along axes, and what is made of them.

var          sum((x - mean)^2) / (n - correction)
logsumexp    max + log(sum(exp(x - max)))
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.rule import Rule, axis_of
from toolchain.engine.tracing.rules.shape import cut
from toolchain.graph import DType, Op


def axes_of(b: GraphBuilder, x: str, axes: int | Sequence[int] | None) -> tuple[int, ...]:
    """Sorted and counted from the first; all where none is given."""
    rank = len(b.shapes[x])
    chosen = range(rank) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
    return tuple(sorted(axis_of(axis, rank) for axis in chosen))


def _totalled(op: Op) -> Rule:
    """sum and mean, which first take the element type of their result."""

    def rule(b: GraphBuilder, x: str, axes: Any = None, keepdim: bool = False, dtype: Any = None) -> str:
        return b.add(op, b.cast(x, b.wanted[0].dtype), axes=axes_of(b, x, axes), keepdim=keepdim)

    return rule


def _extreme(op: Op, index: Op) -> Rule:
    def rule(b: GraphBuilder, x: str, axis: int | None = None, keepdim: bool = False) -> str | list[str]:
        values = b.add(op, x, axes=axes_of(b, x, axis), keepdim=keepdim)
        if axis is None:
            return values
        return [values, b.add(index, x, axis=axes_of(b, x, axis)[0], keepdim=keepdim)]

    return rule


def _reduced(op: Op) -> Rule:
    return lambda b, x, axes=None, keepdim=False: b.add(op, x, axes=axes_of(b, x, axes), keepdim=keepdim)


def _argument(op: Op) -> Rule:
    def rule(b: GraphBuilder, x: str, axis: int | None = None, keepdim: bool = False) -> str:
        if axis is not None:
            return b.add(op, x, axis=axes_of(b, x, axis)[0], keepdim=keepdim)
        found = b.add(op, b.reshape(x, (prod(b.shapes[x]),)), axis=0)
        return b.reshape(found, b.wanted[0].shape)

    return rule


def _variance(b: GraphBuilder, x: str, *given: Any, **options: Any) -> str:
    axes, correction, keepdim = _variance_arguments(*given, **options)
    chosen = axes_of(b, x, axes)
    count = prod(b.shapes[x][axis] for axis in chosen)
    if count <= correction:
        raise CannotLower(f"the variance of {count} value(s) with correction {correction}")
    mean = b.add(Op.MEAN, x, axes=chosen, keepdim=True)
    apart = b.add(Op.SUB, x, mean)
    variance = b.add(Op.MEAN, b.add(Op.MUL, apart, apart), axes=chosen, keepdim=keepdim)
    return b.add(Op.MUL, variance, b.constant(count / (count - correction))) if correction else variance


def _variance_arguments(
    axes: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
    dim: Any = None,
) -> tuple[Any, float, bool]:
    """Axes, correction and keepdim of any of the forms `(unbiased)`, `(axes, unbiased, keepdim)`, `(axes, *,
    correction, keepdim)`."""
    if isinstance(axes, bool):
        axes, unbiased = None, axes
    return (dim if axes is None else axes), (float(unbiased) if correction is None else correction), keepdim


def _deviation(b: GraphBuilder, x: str, *given: Any, **options: Any) -> str:
    return b.add(Op.SQRT, _variance(b, x, *given, **options))


def _with_mean(spread: Rule) -> Rule:
    def rule(b: GraphBuilder, x: str, *given: Any, **options: Any) -> list[str]:
        axes, _, keepdim = _variance_arguments(*given, **options)
        mean = b.add(Op.MEAN, x, axes=axes_of(b, x, axes), keepdim=keepdim)
        return [str(spread(b, x, *given, **options)), mean]

    return rule


def _logsumexp(b: GraphBuilder, x: str, axes: Any, keepdim: bool = False) -> str:
    chosen = axes_of(b, x, axes)
    largest = b.add(Op.REDUCE_MAX, x, axes=chosen, keepdim=True)
    powers = b.add(Op.EXP, b.add(Op.SUB, x, largest))
    logarithm = b.add(Op.LOG, b.add(Op.SUM, powers, axes=chosen, keepdim=True))
    found = b.add(Op.ADD, logarithm, largest)
    return found if keepdim else b.reshape(found, b.wanted[0].shape)


def _cumsum(b: GraphBuilder, x: str, axis: int, dtype: Any = None) -> str:
    return b.add(Op.CUMSUM, b.cast(x, b.wanted[0].dtype), axis=axis_of(axis, len(b.shapes[x])))


def _topk(
    b: GraphBuilder, x: str, count: int, axis: int = -1, largest: bool = True, in_order: bool = True
) -> list[str]:
    chosen = {"count": count, "axis": axis_of(axis, len(b.shapes[x]))}
    if largest:
        return [b.add(Op.TOPK_VALUES, x, **chosen), b.add(Op.TOPK_INDICES, x, **chosen)]
    negated = b.add(Op.NEG, x)
    return [b.add(Op.NEG, b.add(Op.TOPK_VALUES, negated, **chosen)), b.add(Op.TOPK_INDICES, negated, **chosen)]


def _sort(
    b: GraphBuilder, x: str, axis: int = -1, descending: bool = False, *, stable: bool = False, dim: int | None = None
) -> list[str]:
    axis = axis if dim is None else dim
    return _topk(b, x, b.shapes[x][axis], axis, descending)


def _argsort(b: GraphBuilder, x: str, *given: Any, **options: Any) -> str:
    return _sort(b, x, *given, **options)[1]


def _truth(op: Op) -> Rule:
    """any and all: the largest and the smallest of 0 and 1."""

    def rule(b: GraphBuilder, x: str, axes: Any = None, keepdim: bool = False) -> str:
        if b.types[x].dtype is not DType.BOOL:
            x = b.add(Op.NOT_EQUAL, x, b.constant(0, dtype=b.types[x].dtype))
        counted = b.cast(x, DType.INT32)
        return b.cast(b.add(op, counted, axes=axes_of(b, x, axes), keepdim=keepdim), DType.BOOL)

    return rule


def _product(b: GraphBuilder, x: str, axis: int | None = None, keepdim: bool = False, dtype: Any = None) -> str:
    """Half by half, as long as there are two."""
    x = b.cast(x, b.wanted[0].dtype)
    if axis is None:
        x, axis = b.reshape(x, (prod(b.shapes[x]),)), 0
    axis = axis_of(axis, len(b.shapes[x]))
    odd: list[str] = []
    while (size := b.shapes[x][axis]) > 1:
        half = size // 2
        if size % 2:
            odd.append(cut(b, x, axis, size - 1, size))
        x = b.add(Op.MUL, cut(b, x, axis, 0, half), cut(b, x, axis, half, 2 * half))
    for one in odd:
        x = b.add(Op.MUL, x, one)
    return b.reshape(x, b.wanted[0].shape)


def _count(b: GraphBuilder, x: str, axes: Any = None) -> str:
    differs = b.add(Op.NOT_EQUAL, x, b.constant(0, dtype=b.types[x].dtype))
    return b.add(Op.SUM, b.cast(differs, DType.INT64), axes=axes_of(b, x, axes), keepdim=False)


def _least_and_largest(b: GraphBuilder, x: str, *, dim: int | None = None, keepdim: bool = False) -> list[str]:
    chosen: dict[str, Any] = {"axes": axes_of(b, x, dim), "keepdim": keepdim}
    return [b.add(Op.REDUCE_MIN, x, **chosen), b.add(Op.REDUCE_MAX, x, **chosen)]


REDUCTIONS: dict[str, Rule] = {
    "sum": _totalled(Op.SUM),
    "mean": _totalled(Op.MEAN),
    "max": _extreme(Op.REDUCE_MAX, Op.ARGMAX),
    "min": _extreme(Op.REDUCE_MIN, Op.ARGMIN),
    "amax": _reduced(Op.REDUCE_MAX),
    "amin": _reduced(Op.REDUCE_MIN),
    "argmax": _argument(Op.ARGMAX),
    "argmin": _argument(Op.ARGMIN),
    "aminmax": _least_and_largest,
    "count_nonzero": _count,
    "var": _variance,
    "std": _deviation,
    "var_mean": _with_mean(_variance),
    "std_mean": _with_mean(_deviation),
    "logsumexp": _logsumexp,
    "cumsum": _cumsum,
    "topk": _topk,
    "sort": _sort,
    "argsort": _argsort,
    "msort": lambda b, x: _sort(b, x, 0)[0],
    "any": _truth(Op.REDUCE_MAX),
    "all": _truth(Op.REDUCE_MIN),
    "prod": _product,
}
