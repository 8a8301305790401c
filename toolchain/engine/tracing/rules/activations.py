"""Activations, in the graph's words:

hardsigmoid(x)  relu6(x + 3) / 6               silu(x)        x sigmoid(x)
elu(x, alpha)   leaky_relu(elu(x), alpha)      celu(x, a)     a elu(x / a)
selu(x)         1.0507 elu(x, 1.6733)          logsigmoid(x)  -softplus(-x)
softplus(x, b)  softplus(b x) / b              glu(x)         first half * sigmoid(second half)
"""

from __future__ import annotations

from math import inf
from typing import Any

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.rule import Rule, axis_of, real
from toolchain.graph import DType, Op

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_SOFTPLUS_IS_LINEAR = 15.0
"""Beyond this softplus(x) is x in float32, to 4e-7."""


def _relu(b: GraphBuilder, x: str) -> str:
    return b.add(Op.RELU, x) if b.types[x].dtype.is_float else b.add(Op.CLAMP, x, low=0.0, high=inf)


def clamp(b: GraphBuilder, x: str, low: Any = None, high: Any = None) -> str:
    """Between bounds that are numbers, tensors or None."""
    dtype = b.wanted[0].dtype
    x = b.cast(x, dtype)
    if isinstance(low, str) or isinstance(high, str):
        raised = x if low is None else b.add(Op.MAXIMUM, x, b.tensor(low, dtype))
        return raised if high is None else b.add(Op.MINIMUM, raised, b.tensor(high, dtype))
    lowest, highest = -inf if low is None else float(low), inf if high is None else float(high)
    if dtype.is_float and lowest == 0 and highest in (6, inf):
        return b.add(Op.RELU if highest == inf else Op.RELU6, x)
    # torch lets the upper bound win
    return b.add(Op.CLAMP, x, low=min(lowest, highest), high=highest)


def _clamp_max(b: GraphBuilder, x: str, high: Any) -> str:
    return clamp(b, x, None, high)


def _hardtanh(b: GraphBuilder, x: str, low: float = -1.0, high: float = 1.0) -> str:
    return clamp(b, x, low, high)


def _prelu(b: GraphBuilder, x: str, slope: str) -> str:
    if slope not in b.constants:
        raise CannotLower("the slopes must be constant")
    slopes = b.constants[slope]
    if slopes.size == 1:
        return b.add(Op.LEAKY_RELU, x, slope=float(slopes.reshape(())))
    rank = len(b.shapes[x])
    return b.add(Op.PRELU, x, b.reshape(slope, (-1 if rank < 2 else slopes.size, *[1] * (rank - 2))))


def elu(b: GraphBuilder, x: str, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> str:
    """`scale x` above 0, `scale alpha (exp(input_scale x) - 1)` below."""
    y = b.add(Op.ELU, x if input_scale == 1 else b.add(Op.MUL, x, b.constant(input_scale)))
    # what the input was scaled by is taken back above 0
    above, below = scale / input_scale, scale * alpha
    if above != below:
        y = b.add(Op.LEAKY_RELU, y, slope=below / above)
    return y if above == 1 else b.add(Op.MUL, y, b.constant(above))


def _selu(b: GraphBuilder, x: str) -> str:
    return elu(b, x, _SELU_ALPHA, _SELU_SCALE)


def _celu(b: GraphBuilder, x: str, alpha: float = 1.0) -> str:
    return elu(b, x, alpha, 1.0, 1 / alpha)


def _gelu(b: GraphBuilder, x: str, *, approximate: str = "none") -> str:
    return b.add(Op.GELU, x, approximate=approximate == "tanh")


def _silu(b: GraphBuilder, x: str) -> str:
    return b.add(Op.MUL, x, b.add(Op.SIGMOID, x))


def _hardsigmoid(b: GraphBuilder, x: str) -> str:
    shifted = b.add(Op.RELU6, b.add(Op.ADD, x, b.constant(3.0)))
    return b.add(Op.MUL, shifted, b.constant(1 / 6))


def _softplus(b: GraphBuilder, x: str, beta: float = 1.0, threshold: float = 20.0) -> str:
    scaled = x if beta == 1 else b.add(Op.MUL, x, b.constant(float(beta)))
    y = b.add(Op.SOFTPLUS, scaled)
    y = y if beta == 1 else b.add(Op.MUL, y, b.constant(1 / beta))
    if threshold >= _SOFTPLUS_IS_LINEAR:
        return y
    return b.add(Op.WHERE, b.add(Op.GREATER, scaled, b.constant(float(threshold))), x, y)


def _log_sigmoid(b: GraphBuilder, x: str) -> str:
    return b.add(Op.NEG, b.add(Op.SOFTPLUS, b.add(Op.NEG, x)))


def _glu(b: GraphBuilder, x: str, axis: int = -1) -> str:
    axis = axis_of(axis, len(b.shapes[x]))
    size = b.shapes[x][axis]
    halves = [
        b.add(Op.SLICE, x, axes=(axis,), starts=(start,), stops=(start + size // 2,), steps=(1,))
        for start in (0, size // 2)
    ]
    return b.add(Op.MUL, halves[0], b.add(Op.SIGMOID, halves[1]))


def _threshold(b: GraphBuilder, x: str, threshold: float, value: float) -> str:
    if threshold == value == 0:
        return _relu(b, x)
    dtype = b.types[x].dtype
    is_above = b.add(Op.GREATER, x, b.constant(threshold, dtype=dtype))
    return b.add(Op.WHERE, is_above, x, b.constant(value, dtype=dtype))


def _softmax(op: Op) -> Rule:
    def rule(b: GraphBuilder, x: str, axis: int, dtype: Any = None) -> str:
        return b.add(op, b.cast(x, DType.FLOAT32), axis=axis_of(axis, len(b.shapes[x])))

    return rule


def _softshrink(b: GraphBuilder, x: str, bound: float = 0.5) -> str:
    """What lies outside `±bound`, moved towards zero by it."""
    return b.add(Op.SUB, x, b.add(Op.CLAMP, x, low=-float(bound), high=float(bound)))


def _hardshrink(b: GraphBuilder, x: str, bound: float = 0.5) -> str:
    is_outside = b.add(Op.GREATER, b.add(Op.ABS, x), b.constant(float(bound)))
    return b.add(Op.WHERE, is_outside, x, b.constant(0.0))


ACTIVATIONS: dict[str, Rule] = {
    "relu": _relu,
    "relu6": real(Op.RELU6),
    "hardtanh": _hardtanh,
    "clamp": clamp,
    "clamp_min": clamp,
    "clamp_max": _clamp_max,
    "leaky_relu": lambda b, x, slope=0.01: b.add(Op.LEAKY_RELU, x, slope=float(slope)),
    "prelu": _prelu,
    "elu": elu,
    "selu": _selu,
    "celu": _celu,
    "gelu": _gelu,
    "sigmoid": real(Op.SIGMOID),
    "tanh": real(Op.TANH),
    "hardswish": real(Op.HARDSWISH),
    "hardsigmoid": _hardsigmoid,
    "silu": _silu,
    "mish": real(Op.MISH),
    "softplus": _softplus,
    "log_sigmoid": _log_sigmoid,
    "glu": _glu,
    "threshold": _threshold,
    "softshrink": _softshrink,
    "hardshrink": _hardshrink,
    "softmax": _softmax(Op.SOFTMAX),
    "log_softmax": _softmax(Op.LOG_SOFTMAX),
}
