"""Lengths of vectors, distances and angles between them.

norm                 (sum |x|^p)^(1/p), of which sqrt(sum x^2), sum |x| and max |x| are the usual
cosine similarity    sum(x y) / (max(|x|, epsilon) max(|y|, epsilon))
"""

from __future__ import annotations

from math import inf
from typing import Any

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.reductions import axes_of
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.graph import Op


def _norm(
    b: GraphBuilder, x: str, order: float | str | None = 2, axes: Any = None, keepdim: bool = False, dtype: Any = None
) -> str:
    chosen: dict[str, Any] = {"axes": axes_of(b, x, axes), "keepdim": keepdim}
    order = 2.0 if order in (None, "fro") else order
    if isinstance(order, str):
        raise CannotLower(f"the {order!r} norm of a matrix is not supported")
    if order is None or order == 2:
        return b.add(Op.SQRT, b.add(Op.SUM, b.add(Op.MUL, x, x), **chosen))
    size = b.add(Op.ABS, x)
    if order == 1:
        return b.add(Op.SUM, size, **chosen)
    if order in (inf, -inf):
        return b.add(Op.REDUCE_MAX if order > 0 else Op.REDUCE_MIN, size, **chosen)
    if order == 0:
        raise CannotLower("a count of what is not zero is not supported")
    powers = b.add(Op.SUM, b.add(Op.POW, size, b.constant(float(order))), **chosen)
    return b.add(Op.POW, powers, b.constant(1 / order))


def _matrix_norm(
    b: GraphBuilder,
    x: str,
    order: float | str | None = None,
    axes: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> str:
    """torch.linalg.norm: of vectors for one axis, of matrices for two, where only the Frobenius norm is a sum."""
    if order in (None, "fro") or len(axes_of(b, x, axes)) == 1:
        return _norm(b, x, order, axes, keepdim)
    raise CannotLower(f"the norm {order!r} of a matrix is not supported")


def _inner(b: GraphBuilder, x: str, y: str, *, dim: int = -1) -> str:
    product = b.add(Op.MUL, x, y)
    return b.add(Op.SUM, product, axes=axes_of(b, product, dim), keepdim=False)


def _cosine(b: GraphBuilder, x: str, y: str, axis: int = 1, epsilon: float = 1e-8) -> str:
    lengths = [b.add(Op.MAXIMUM, _norm(b, z, 2, axis), b.constant(epsilon)) for z in (x, y)]
    return b.add(Op.DIV, _inner(b, x, y, dim=axis), b.add(Op.MUL, *lengths))


def _distance(b: GraphBuilder, x: str, y: str, order: float = 2.0, epsilon: float = 1e-6, keepdim: bool = False) -> str:
    apart = b.add(Op.ADD, b.add(Op.SUB, x, y), b.constant(epsilon))
    return _norm(b, apart, order, -1, keepdim)


DISTANCES: dict[str, Rule] = {
    "norm": _norm,
    "linalg_vector_norm": _norm,
    "linalg_norm": _matrix_norm,
    "linalg_vecdot": _inner,
    "cosine_similarity": _cosine,
    "pairwise_distance": _distance,
}
