"""Comparisons, functions of booleans, and selection."""

from __future__ import annotations

from typing import Any

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.graph import DType, Op

_ORDER = (DType.BOOL, DType.UINT8, DType.INT8, DType.INT16, DType.INT32, DType.INT64, DType.FLOAT16, DType.FLOAT32)


def _compared(b: GraphBuilder, left: Any, right: Any) -> DType:
    """The element type in which torch compares a tensor and a tensor or number."""
    kinds = [b.types[value].dtype for value in (left, right) if isinstance(value, str)]
    widest = max(kinds, key=_ORDER.index)
    for value in (left, right):
        if isinstance(value, float) and not widest.is_float:
            return DType.FLOAT32
        if isinstance(value, int) and not isinstance(value, bool) and widest is DType.BOOL:
            return DType.INT64
    return widest


def _comparison(op: Op) -> Rule:
    def rule(b: GraphBuilder, left: Any, right: Any) -> str:
        dtype = _compared(b, left, right)
        if dtype is DType.BOOL and op not in (Op.EQUAL, Op.NOT_EQUAL):
            dtype = DType.INT32
        return b.add(op, b.tensor(left, dtype), b.tensor(right, dtype))

    return rule


def _logical(op: Op) -> Rule:
    return lambda b, left, right: b.add(op, b.tensor(left, DType.BOOL), b.tensor(right, DType.BOOL))


def _logical_xor(b: GraphBuilder, left: Any, right: Any) -> str:
    return b.add(Op.NOT_EQUAL, b.tensor(left, DType.BOOL), b.tensor(right, DType.BOOL))


def _logical_not(b: GraphBuilder, x: str) -> str:
    return b.add(Op.LOGICAL_NOT, b.cast(x, DType.BOOL))


def _bitwise(rule: Rule) -> Rule:
    def of_booleans(b: GraphBuilder, *args: Any) -> Any:
        if b.wanted[0].dtype is not DType.BOOL:
            raise CannotLower("only the bits of booleans are supported: compare, or divide and take the remainder")
        return rule(b, *args)

    return of_booleans


def where(b: GraphBuilder, condition: str, left: Any, right: Any) -> str:
    """`left` where the condition holds, else `right`: tensors or numbers."""
    dtype = b.wanted[0].dtype
    condition, left, right = b.cast(condition, DType.BOOL), b.tensor(left, dtype), b.tensor(right, dtype)
    if dtype is not DType.BOOL:
        return b.add(Op.WHERE, condition, left, right)
    other = b.add(Op.LOGICAL_AND, b.add(Op.LOGICAL_NOT, condition), right)
    return b.add(Op.LOGICAL_OR, b.add(Op.LOGICAL_AND, condition, left), other)


def _masked_fill(b: GraphBuilder, x: str, mask: str, value: Any) -> str:
    return where(b, mask, value, x)


_AND, _OR = _logical(Op.LOGICAL_AND), _logical(Op.LOGICAL_OR)

LOGIC: dict[str, Rule] = {
    "eq": _comparison(Op.EQUAL),
    "ne": _comparison(Op.NOT_EQUAL),
    "lt": _comparison(Op.LESS),
    "le": _comparison(Op.LESS_EQUAL),
    "gt": _comparison(Op.GREATER),
    "ge": _comparison(Op.GREATER_EQUAL),
    "logical_and": _AND,
    "logical_or": _OR,
    "logical_xor": _logical_xor,
    "logical_not": _logical_not,
    "bitwise_and": _bitwise(_AND),
    "bitwise_or": _bitwise(_OR),
    "bitwise_xor": _bitwise(_logical_xor),
    "bitwise_not": _bitwise(_logical_not),
    "__and__": _bitwise(_AND),
    "__or__": _bitwise(_OR),
    "__xor__": _bitwise(_logical_xor),
    "where": where,
    "masked_fill": _masked_fill,
}
