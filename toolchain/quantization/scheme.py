"""What a device asks of a quantized tensor, and the number formats a file may have: integer or float types, symmetric
or not, one scale a tensor or one a channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from toolchain.graph.ops import Op
from toolchain.graph.types import DType


class Granularity(StrEnum):
    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"


class Reals(StrEnum):
    """How a file stores reals that have no integer parameters. With `FLOAT16_WEIGHTS` constants are float16 and widened
    before they are computed with; with `FLOAT16` nothing but the in- and outputs is float32."""

    FLOAT32 = "float32"
    FLOAT16_WEIGHTS = "float16_weights"
    FLOAT16 = "float16"


class NumberFormat(StrEnum):
    """Number formats by name: weights, then activations (`w8a16`: int8 weights, int16 activations)."""

    W8A8 = "w8a8"
    W8A8_PER_TENSOR = "w8a8_per_tensor"
    W8A16 = "w8a16"
    W4A8 = "w4a8"
    W4 = "w4"
    W4_BLOCK = "w4_block"
    DYNAMIC_INT8 = "dynamic_int8"
    FLOAT16_WEIGHTS = "float16_weights"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


@dataclass(frozen=True)
class Numbers:
    """What a number format means. `weight` or `activation` is None where these stay real, stored as `reals` says.
    `block` is how many inputs of a linear layer share a scale."""

    weight: DType | None
    activation: DType | None
    granularity: Granularity = Granularity.PER_CHANNEL
    reals: Reals = Reals.FLOAT32
    block: int | None = None


NUMBERS: Final[Mapping[NumberFormat, Numbers]] = {
    NumberFormat.W8A8: Numbers(DType.INT8, DType.INT8),
    NumberFormat.W8A8_PER_TENSOR: Numbers(DType.INT8, DType.INT8, Granularity.PER_TENSOR),
    NumberFormat.W8A16: Numbers(DType.INT8, DType.INT16),
    NumberFormat.W4A8: Numbers(DType.INT4, DType.INT8),
    NumberFormat.W4: Numbers(DType.INT4, None),
    NumberFormat.W4_BLOCK: Numbers(DType.INT4, None, block=32),
    NumberFormat.DYNAMIC_INT8: Numbers(DType.INT8, None),
    NumberFormat.FLOAT16_WEIGHTS: Numbers(None, None, reals=Reals.FLOAT16_WEIGHTS),
    NumberFormat.FLOAT16: Numbers(None, None, reals=Reals.FLOAT16),
    NumberFormat.FLOAT32: Numbers(None, None),
}


@dataclass(frozen=True)
class Scheme:
    """How a whole graph is stored and computed.

    Activations are per tensor, and float where `activation_dtype` is None. Weights are symmetric, per output channel
    unless `weight_granularity` or, for one op, `granularity_of_op` says per tensor, and real where `weight_dtype` is
    None. `weight_bits` (2 to 8) narrows the integers of weights within their dtype: 3 bits are -3 to 3. With
    `weight_block` linear layers have a scale for every so many inputs of an output, where that divides their number.
    Biases are what the accumulator holds. `float_islands` says whether ops without an integer kernel may compute in
    float. The default is the published TFLite int8 specification.
    """

    activation_dtype: DType | None = DType.INT8
    activation_symmetric: bool = False
    weight_dtype: DType | None = DType.INT8
    weight_granularity: Granularity = Granularity.PER_CHANNEL
    granularity_of_op: Mapping[Op, Granularity] = field(default_factory=dict)
    float_islands: bool = True
    reals: Reals = Reals.FLOAT32
    weight_bits: int | None = None
    weight_block: int | None = None

    def granularity(self, op: Op) -> Granularity:
        return self.granularity_of_op.get(op, self.weight_granularity)

    def with_numbers(self, wanted: NumberFormat) -> Scheme:
        """The scheme of the same device for another number format; w8a8 is what the device itself asks for."""
        numbers = NUMBERS[wanted]
        if wanted is NumberFormat.W8A8:
            return self
        return replace(
            self,
            activation_dtype=numbers.activation,
            # the int16 kernels know no zero point
            activation_symmetric=self.activation_symmetric or numbers.activation is DType.INT16,
            weight_dtype=numbers.weight,
            weight_granularity=numbers.granularity,
            granularity_of_op={} if numbers.granularity is Granularity.PER_TENSOR else self.granularity_of_op,
            reals=numbers.reals,
            weight_block=numbers.block,
        )
