"""Quantization facet: how the parameters of an op's result follow from its inputs (TFLite int8 specification).

* `WEIGHTED`  int8 weight, int32 bias, the result has a range of its own
* `OWN`       the result has a range of its own
* `SHARED`    inputs and result carry the same parameters: the op moves, selects or averages integers
* `FIXED`     the result's parameters are given, whatever the samples say
* `FLOAT`     no integer kernel exists
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolchain.graph.ops import Op


class Kind(StrEnum):
    WEIGHTED = "weighted"
    OWN = "own"
    SHARED = "shared"
    FIXED = "fixed"
    FLOAT = "float"


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

QUANTIZATION_RULES: dict[Op, QuantizationRule] = {
    Op.CONV2D: _WEIGHTED,
    Op.DEPTHWISE_CONV2D: _WEIGHTED,
    Op.LINEAR: _WEIGHTED,
    Op.BATCH_NORM: QuantizationRule(Kind.FLOAT),  # folded before; only one over a vector can be left
    Op.RELU: _OWN,
    Op.RELU6: _OWN,
    Op.LEAKY_RELU: _OWN,
    Op.SIGMOID: _UNIT,
    Op.TANH: _SIGNED_UNIT,
    Op.HARDSWISH: _OWN,
    Op.SOFTMAX: _UNIT,
    Op.ADD: _OWN,
    Op.SUB: _OWN,
    Op.MUL: _OWN,
    Op.MAX_POOL2D: _SHARED,
    Op.AVG_POOL2D: QuantizationRule(Kind.SHARED),
    Op.MEAN: _OWN,
    Op.RESHAPE: _SHARED,
    Op.PERMUTE: _SHARED,
    Op.CONCAT: _SHARED,
    Op.PAD: _SHARED,
    Op.SLICE: _SHARED,
}
