"""Functions of one and two tensors.

Operands take the element type of the result first, as torch promotes them. Integer division:

    floor(a / b)   q - (r != 0 and (r < 0) != (b < 0))  for  q = a / b towards zero,  r = a - q b
    remainder      a - floor(a / b) b
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.rule import Rule, real
from toolchain.graph import DType, Op

_OF_BOOLEANS = {Op.ADD: Op.LOGICAL_OR, Op.MUL: Op.LOGICAL_AND}


def _arithmetic(op: Op) -> Rule:
    def rule(b: GraphBuilder, left: Any, right: Any, *, alpha: float = 1) -> str:
        dtype = b.wanted[0].dtype
        op_here = _OF_BOOLEANS.get(op, op) if dtype is DType.BOOL else op
        if op is Op.MUL and isinstance(right, (int, float)) and right == 1:
            return b.cast(left, dtype)
        if alpha != 1:
            right = b.add(Op.MUL, b.tensor(right, dtype), b.constant(alpha, dtype=dtype))
        return b.add(op_here, b.tensor(left, dtype), b.tensor(right, dtype))

    return rule


def _rsub(b: GraphBuilder, left: Any, right: Any, alpha: float = 1) -> str:
    return str(_arithmetic(Op.SUB)(b, right, left, alpha=alpha))


def _div(b: GraphBuilder, left: Any, right: Any, *, rounding_mode: str | None = None) -> str:
    if rounding_mode is None:
        return _quotient(b, left, right)
    dtype = b.wanted[0].dtype
    left, right = b.tensor(left, dtype), b.tensor(right, dtype)
    if not dtype.is_float:
        return b.add(Op.DIV, left, right) if rounding_mode == "trunc" else _floor_of_integers(b, left, right)
    quotient = b.add(Op.DIV, left, right)
    return _trunc(b, quotient) if rounding_mode == "trunc" else b.add(Op.FLOOR, quotient)


def _quotient(b: GraphBuilder, left: Any, right: Any) -> str:
    dtype = b.wanted[0].dtype
    left = b.tensor(left, dtype)
    if isinstance(right, (int, float)) and right:
        return left if right == 1 else b.add(Op.MUL, left, b.constant(1 / right))
    if right in b.constants and b.constants[right].all():
        return b.add(Op.MUL, left, b.constant((1 / b.constants[right]).astype(np.float32)))
    return b.add(Op.DIV, left, b.tensor(right, dtype))


def _floor_of_integers(b: GraphBuilder, left: str, right: str) -> str:
    dtype = b.types[left].dtype
    zero = b.constant(0, dtype=dtype)
    quotient = b.add(Op.DIV, left, right)
    rest = b.add(Op.SUB, left, b.add(Op.MUL, quotient, right))
    unlike = b.add(Op.NOT_EQUAL, *(b.cast(b.add(Op.LESS, n, zero), DType.INT32) for n in (rest, right)))
    is_below = b.add(Op.LOGICAL_AND, b.add(Op.NOT_EQUAL, rest, zero), unlike)
    return b.add(Op.SUB, quotient, b.cast(is_below, dtype))


def _floor_divide(b: GraphBuilder, left: Any, right: Any) -> str:
    return _div(b, left, right, rounding_mode="floor")


def _remainder(rounding_mode: str) -> Rule:
    def rule(b: GraphBuilder, left: Any, right: Any) -> str:
        dtype = b.wanted[0].dtype
        left, right = b.tensor(left, dtype), b.tensor(right, dtype)
        return b.add(Op.SUB, left, b.add(Op.MUL, _div(b, left, right, rounding_mode=rounding_mode), right))

    return rule


def _trunc(b: GraphBuilder, x: str) -> str:
    return b.add(Op.MUL, b.add(Op.SIGN, x), b.add(Op.FLOOR, b.add(Op.ABS, x)))


def _whole(rounded: Callable[[GraphBuilder, str], str]) -> Rule:
    """A rounding, which leaves integers as they are."""

    def rule(b: GraphBuilder, x: str, *, decimals: int = 0) -> str:
        if not b.types[x].dtype.is_float:
            return x
        if not decimals:
            return rounded(b, x)
        scaled = rounded(b, b.add(Op.MUL, x, b.constant(10.0**decimals)))
        return b.add(Op.MUL, scaled, b.constant(10.0**-decimals))

    return rule


def _pow(b: GraphBuilder, base: Any, exponent: Any) -> str:
    dtype = b.wanted[0].dtype
    base = b.tensor(base, dtype)
    if isinstance(exponent, (int, float)) and (power := _power(b, base, exponent, dtype)):
        return power
    return b.add(Op.POW, base, b.tensor(exponent, dtype))


def _power(b: GraphBuilder, x: str, exponent: float, dtype: DType) -> str | None:
    """Powers that are products, roots or reciprocals of them."""
    if exponent == 1:
        return x
    if exponent in (2, 3, 4):
        squared = b.add(Op.MUL, x, x)
        return squared if exponent == 2 else b.add(Op.MUL, squared, x if exponent == 3 else squared)
    if not dtype.is_float:
        return None
    if exponent in (0.5, -0.5):
        return b.add(Op.SQRT if exponent > 0 else Op.RSQRT, x)
    if exponent in (-1, -2):
        divisor = x if exponent == -1 else b.add(Op.MUL, x, x)
        return b.add(Op.DIV, b.constant(1.0), divisor)
    return None


def _square(b: GraphBuilder, x: str) -> str:
    return b.add(Op.MUL, x, x)


def _exp2(b: GraphBuilder, x: str) -> str:
    return b.add(Op.POW, b.constant(2.0), b.cast(x, DType.FLOAT32))


def _logarithm(base: float) -> Rule:
    return lambda b, x: b.add(Op.MUL, b.add(Op.LOG, b.cast(x, DType.FLOAT32)), b.constant(1 / log(base)))


def _log1p(b: GraphBuilder, x: str) -> str:
    return b.add(Op.LOG, b.add(Op.ADD, b.cast(x, DType.FLOAT32), b.constant(1.0)))


def _expm1(b: GraphBuilder, x: str) -> str:
    return b.add(Op.SUB, b.add(Op.EXP, b.cast(x, DType.FLOAT32)), b.constant(1.0))


def _lerp(b: GraphBuilder, start: str, end: str, weight: Any) -> str:
    step = b.add(Op.MUL, b.add(Op.SUB, end, start), b.tensor(weight, DType.FLOAT32))
    return b.add(Op.ADD, start, step)


def _added(op: Op) -> Rule:
    def rule(b: GraphBuilder, x: str, left: str, right: str, *, value: float = 1) -> str:
        dtype = b.wanted[0].dtype
        left = b.cast(left, dtype) if value == 1 else b.add(Op.MUL, b.cast(left, dtype), b.constant(value, dtype=dtype))
        return b.add(Op.ADD, b.cast(x, dtype), b.add(op, left, b.cast(right, dtype)))

    return rule


def _signed(op: Op) -> Rule:
    """Of reals and integers alike."""
    return lambda b, x: b.add(op, b.cast(x, b.wanted[0].dtype))


def _larger_or_reduced(b: GraphBuilder, op: Op, reduce: Callable[..., Any] | None, *args: Any, **kwargs: Any) -> Any:
    """torch.max and torch.min of two tensors; of one they are reductions."""
    if len(args) == 2 and isinstance(args[1], str):
        return _arithmetic(op)(b, *args)
    if reduce is None:
        raise CannotLower("not in the op set")
    return reduce(b, *args, **kwargs)


def with_two_tensors(op: Op, reduce: Callable[..., Any] | None) -> Rule:
    """The rule of an ATen op that is `op` of two tensors, and the reduction `reduce` of one."""
    return lambda b, *args, **kwargs: _larger_or_reduced(b, op, reduce, *args, **kwargs)


ARITHMETIC: dict[str, Rule] = {
    "add": _arithmetic(Op.ADD),
    "sub": _arithmetic(Op.SUB),
    "rsub": _rsub,
    "mul": _arithmetic(Op.MUL),
    "div": _div,
    "floor_divide": _floor_divide,
    "remainder": _remainder("floor"),
    "fmod": _remainder("trunc"),
    "pow": _pow,
    "square": _square,
    "reciprocal": lambda b, x: _pow(b, x, -1),
    "minimum": _arithmetic(Op.MINIMUM),
    "maximum": _arithmetic(Op.MAXIMUM),
    "fmin": _arithmetic(Op.MINIMUM),
    "fmax": _arithmetic(Op.MAXIMUM),
    "exp": real(Op.EXP),
    "exp2": _exp2,
    "expm1": _expm1,
    "log": real(Op.LOG),
    "log2": _logarithm(2),
    "log10": _logarithm(10),
    "log1p": _log1p,
    "sqrt": real(Op.SQRT),
    "rsqrt": real(Op.RSQRT),
    "sin": real(Op.SIN),
    "cos": real(Op.COS),
    "erf": real(Op.ERF),
    "abs": _signed(Op.ABS),
    "neg": _signed(Op.NEG),
    "sign": _signed(Op.SIGN),
    "sgn": _signed(Op.SIGN),
    "floor": _whole(lambda b, x: b.add(Op.FLOOR, x)),
    "ceil": _whole(lambda b, x: b.add(Op.CEIL, x)),
    "round": _whole(lambda b, x: b.add(Op.ROUND, x)),
    "trunc": _whole(_trunc),
    "fix": _whole(_trunc),
    "lerp": _lerp,
    "addcmul": _added(Op.MUL),
    "addcdiv": _added(Op.DIV),
}
