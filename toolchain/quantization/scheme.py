"""What a device asks of a quantized tensor: integer type, symmetric or not, one scale a tensor or one a channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from toolchain.graph.ops import Op
from toolchain.graph.types import DType


class Granularity(StrEnum):
    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"


@dataclass(frozen=True)
class Scheme:
    """Static quantization of a whole graph.

    Activations are per tensor; weights are symmetric, per output channel unless `weight_granularity` or, for one op,
    `granularity_of_op` says per tensor; biases are int32. The default is the published TFLite int8 specification.
    """

    activation_dtype: DType = DType.INT8
    activation_symmetric: bool = False
    weight_dtype: DType = DType.INT8
    weight_granularity: Granularity = Granularity.PER_CHANNEL
    granularity_of_op: Mapping[Op, Granularity] = field(default_factory=dict)

    def granularity(self, op: Op) -> Granularity:
        return self.granularity_of_op.get(op, self.weight_granularity)
