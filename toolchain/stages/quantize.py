"""quantize: affine parameters for every tensor, from the measured ranges and the device's scheme."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from toolchain.errors import OptionError
from toolchain.progress import Progress
from toolchain.quantization import NumberFormat, Scheme, TensorStatistics, assign_params
from toolchain.quantization.correct import correct_biases
from toolchain.stages.stage import Stage
from toolchain.stages.states import CalibratedModel, QuantizedModel


class RangeMethod(StrEnum):
    """How an activation's range follows from its statistics."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"


@dataclass(frozen=True, kw_only=True)
class Quantize(Stage[CalibratedModel, QuantizedModel]):
    """Quantization after `scheme`, in the number format `numbers` (w8a8 is what the device asks for).

    `percentile` is the share of values kept by the percentile method, in
    percent; `correct_bias` takes the mean shift of rounded weights out of the biases.

    Raises UnsupportedError where an op has no integer kernel, OptionError where percentiles were not measured.
    """

    name = "quantize"
    takes = (CalibratedModel,)
    gives = QuantizedModel

    scheme: Scheme = field(default_factory=Scheme)
    numbers: NumberFormat = NumberFormat.W8A8
    ranges: RangeMethod = RangeMethod.MINMAX
    percentile: float = 99.999
    correct_bias: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.percentile, (int, float)) or not 50 < self.percentile <= 100:
            raise OptionError(f"percentile must lie in (50, 100], not {self.percentile!r}")
        if self.ranges not in list(RangeMethod):
            raise OptionError(f"ranges is {self.ranges!r}", hint=f"choose {' or '.join(RangeMethod)}")
        if self.numbers not in list(NumberFormat):
            raise OptionError(f"numbers is {self.numbers!r}", hint=f"choose {', '.join(NumberFormat)}")

    def _run(self, model: CalibratedModel, progress: Progress) -> QuantizedModel:
        ranges = {name: self._range(statistics) for name, statistics in model.statistics.items()}
        scheme = self.scheme.with_numbers(self.numbers)
        quantized = assign_params(model.graph, ranges, scheme, model.structure)
        if self.correct_bias:
            means = {name: s.means for name, s in model.statistics.items() if s.means is not None}
            quantized = correct_biases(quantized, means)
        per_channel = sum(p.axis is not None and p.zero_point.ndim == 1 for p in quantized.params.values())
        facts = {
            "tensors": len(quantized.params),
            "per_channel": per_channel,
            "float_nodes": len(quantized.float_nodes),
        }
        return QuantizedModel(
            graph=quantized.graph,
            reference=model.reference,
            structure=model.structure,
            params=quantized.params,
            corrections=quantized.corrections,
            float_nodes=quantized.float_nodes,
            reals=quantized.reals,
            history=model.recorded(self, facts),
        )

    def _range(self, statistics: TensorStatistics) -> tuple[float, float]:
        if self.ranges == RangeMethod.MINMAX:
            return statistics.minmax()
        try:
            return statistics.percentile(self.percentile)
        except ValueError as error:
            raise OptionError(str(error), hint="set histograms = true in the calibrate stage") from error
