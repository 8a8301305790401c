"""Products of matrices, and attention.

A right operand that is a constant matrix makes a linear layer of the product, whose weights have a scale a column.
Attention is `softmax(scale q k^T + mask) v` (Vaswani et al., arXiv 1706.03762, equation 1).
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from toolchain.engine.tracing.builder import GraphBuilder
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.engine.tracing.rules.shape import expand, permute
from toolchain.graph import DType, Op


def matmul(b: GraphBuilder, left: str, right: str) -> str:
    """The product as numpy has it; vectors are rows on the left, columns on the right."""
    x = b.reshape(left, (1, *b.shapes[left])) if len(b.shapes[left]) == 1 else left
    y = b.reshape(right, (*b.shapes[right], 1)) if len(b.shapes[right]) == 1 else right
    product = _product(b, x, y)
    shape = b.shapes[product]
    if x != left:
        shape = (*shape[:-2], shape[-1])
    if y != right:
        shape = shape[:-1]
    return product if shape == b.shapes[product] else b.reshape(product, shape)


def _product(b: GraphBuilder, left: str, right: str) -> str:
    known = b.value_of(right) if len(b.shapes[right]) == 2 else None
    if known is None or known.dtype.kind != "f":
        return b.add(Op.MATMUL, left, right)
    return b.add(Op.LINEAR, left, b.constant(np.ascontiguousarray(known.T)))


def _outer(b: GraphBuilder, left: str, right: str) -> str:
    return b.add(Op.MUL, b.reshape(left, (*b.shapes[left], 1)), right)


def linear(b: GraphBuilder, x: str, weight: str, bias: str | None = None) -> str:
    """A linear layer, or a product where the graph computes the weight."""
    if b.value_of(weight) is None:
        product = matmul(b, x, _transposed(b, weight))
        return product if bias is None else b.add(Op.ADD, product, bias)
    return b.add(Op.LINEAR, *((x, weight) if bias is None else (x, weight, bias)))


def _transposed(b: GraphBuilder, x: str) -> str:
    rank = len(b.shapes[x])
    return permute(b, x, (*range(rank - 2), rank - 1, rank - 2))


def _added(b: GraphBuilder, x: str, left: str, right: str, *, beta: float = 1, alpha: float = 1) -> str:
    """`beta x + alpha left right`."""
    product = matmul(b, left, right)
    if alpha != 1:
        product = b.add(Op.MUL, product, b.constant(float(alpha)))
    if beta == 0:
        return product
    return b.add(Op.ADD, product, x if beta == 1 else b.add(Op.MUL, x, b.constant(float(beta))))


def _attention(
    b: GraphBuilder,
    query: str,
    key: str,
    value: str,
    attn_mask: str | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> str:
    if enable_gqa:
        key, value = (_repeated_heads(b, x, b.shapes[query][-3]) for x in (key, value))
    factor = 1 / sqrt(b.shapes[query][-1]) if scale is None else scale
    scaled = b.add(Op.MUL, query, b.constant(float(factor)))
    scores = matmul(b, scaled, _transposed(b, key))
    if is_causal:
        attn_mask = b.constant(np.tril(np.ones(b.shapes[scores][-2:], np.bool_)))
    if attn_mask is not None:
        scores = _masked(b, scores, attn_mask)
    return matmul(b, b.add(Op.SOFTMAX, scores, axis=len(b.shapes[scores]) - 1), value)


def _masked(b: GraphBuilder, scores: str, mask: str) -> str:
    if b.types[mask].dtype is DType.BOOL:
        return b.add(Op.WHERE, mask, scores, b.constant(float("-inf")))
    return b.add(Op.ADD, scores, mask)


def _repeated_heads(b: GraphBuilder, x: str, heads: int) -> str:
    """Each head of keys or values serves several of the queries."""
    *batch, own, steps, features = b.shapes[x]
    if own == heads:
        return x
    apart = b.reshape(x, (*batch, own, 1, steps, features))
    wide = expand(b, apart, (*batch, own, heads // own, steps, features))
    return b.reshape(wide, (*batch, heads, steps, features))


MATMUL: dict[str, Rule] = {
    "matmul": matmul,
    "bmm": matmul,
    "mm": matmul,
    "mv": matmul,
    "dot": matmul,
    "inner": lambda b, x, y: matmul(b, x, _transposed(b, y) if len(b.shapes[y]) > 1 else y),
    "addmv": _added,
    "linear": linear,
    "outer": _outer,
    "addmm": _added,
    "baddbmm": _added,
    "scaled_dot_product_attention": _attention,
}
