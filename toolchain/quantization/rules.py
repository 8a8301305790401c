"""Quantization facet: how the parameters of an op's result follow from its inputs (TFLite int8 specification).

* `WEIGHTED`  int8 weight, int32 bias, the result has a range of its own
* `OWN`       the result has a range of its own
* `SHARED`    inputs and result carry the same parameters: the op moves, selects or averages integers
* `FIXED`     the result's parameters are given, whatever the samples say
* `FLOAT`     no integer kernel exists: computed in float between a DEQUANTIZE and a QUANTIZE, a float island
* `EXACT`     indices, booleans and what is made of them: no parameters, whatever the inputs
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolchain.graph.ops import RECURRENT, Op


class Kind(StrEnum):
    WEIGHTED = "weighted"
    OWN = "own"
    SHARED = "shared"
    FIXED = "fixed"
    FLOAT = "float"
    EXACT = "exact"


@dataclass(frozen=True)
class QuantizationRule:
    """A kind; for `FIXED`, the int8 scale and zero point; for `SHARED`, whether results are rounded anew."""

    kind: Kind
    scale: float = 0.0
    zero_point: int = 0
    rounds: bool = True


_WEIGHTED = QuantizationRule(Kind.WEIGHTED)
_OWN = QuantizationRule(Kind.OWN)
_SHARED = QuantizationRule(Kind.SHARED, rounds=False)
_UNIT = QuantizationRule(Kind.FIXED, 1 / 256, -128)  # results in [0, 1)
_SIGNED_UNIT = QuantizationRule(Kind.FIXED, 1 / 128, 0)  # results in [-1, 1)

_FLOAT = QuantizationRule(Kind.FLOAT)
_EXACT = QuantizationRule(Kind.EXACT)

QUANTIZATION_RULES: dict[Op, QuantizationRule] = {
    **dict.fromkeys((Op.CONV2D, Op.DEPTHWISE_CONV2D, Op.CONV_TRANSPOSE2D, Op.LINEAR), _WEIGHTED),
    # onnxruntime has no integer kernels; in integers, every step adds its rounding to those before
    **dict.fromkeys(RECURRENT, _FLOAT),
    # a batch norm is one of an image once folded, and then a convolution
    **dict.fromkeys((Op.BATCH_NORM, Op.LAYER_NORM, Op.RMS_NORM), _FLOAT),
    **dict.fromkeys((Op.RELU, Op.RELU6, Op.LEAKY_RELU, Op.PRELU, Op.HARDSWISH, Op.CLAMP), _OWN),
    **dict.fromkeys((Op.ELU, Op.GELU), _OWN),
    **dict.fromkeys((Op.SOFTPLUS, Op.MISH), _FLOAT),
    Op.SIGMOID: _UNIT,
    Op.TANH: _SIGNED_UNIT,
    Op.SOFTMAX: _UNIT,
    Op.LOG_SOFTMAX: QuantizationRule(Kind.FIXED, 1 / 16, 127),  # results in [-16, 0]
    **dict.fromkeys((Op.EXP, Op.RSQRT, Op.ABS, Op.NEG), _OWN),
    **dict.fromkeys((Op.LOG, Op.SQRT, Op.SIN, Op.COS, Op.ERF, Op.DIV, Op.POW), _FLOAT),
    **dict.fromkeys((Op.FLOOR, Op.CEIL, Op.ROUND, Op.SIGN), _FLOAT),
    Op.CAST: _EXACT,
    **dict.fromkeys((Op.REQUANTIZE, Op.ADD, Op.SUB, Op.MUL, Op.MATMUL), _OWN),
    **dict.fromkeys((Op.MINIMUM, Op.MAXIMUM, Op.WHERE), _SHARED),
    # the integer kernels compare operands of unlike scales only nearly
    **dict.fromkeys((Op.EQUAL, Op.NOT_EQUAL, Op.LESS, Op.LESS_EQUAL, Op.GREATER, Op.GREATER_EQUAL), _FLOAT),
    **dict.fromkeys((Op.LOGICAL_AND, Op.LOGICAL_OR, Op.LOGICAL_NOT), _EXACT),
    **dict.fromkeys((Op.MAX_POOL2D, Op.REDUCE_MAX, Op.REDUCE_MIN, Op.TOPK_VALUES), _SHARED),
    Op.AVG_POOL2D: QuantizationRule(Kind.SHARED),
    Op.MEAN: _OWN,
    **dict.fromkeys((Op.ARGMAX, Op.ARGMIN, Op.TOPK_INDICES), _EXACT),
    # LiteRT's reference kernel gives wrong int8 sums
    **dict.fromkeys((Op.SUM, Op.CUMSUM), _FLOAT),
    **dict.fromkeys((Op.RESHAPE, Op.PERMUTE, Op.CONCAT, Op.PAD, Op.SLICE, Op.EXPAND), _SHARED),
    **dict.fromkeys((Op.GATHER, Op.GATHER_ELEMENTS, Op.DEPTH_TO_SPACE, Op.SPACE_TO_DEPTH), _SHARED),
    Op.RESIZE: QuantizationRule(Kind.SHARED),
}
