"""quantize: affine parameters for every tensor, from the measured ranges and the device's scheme."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from toolchain.errors import OptionError, raise_collected
from toolchain.fidelity import Metric
from toolchain.formats.artifact import Format
from toolchain.graph import DType
from toolchain.ladder.goal import Goal
from toolchain.progress import Progress
from toolchain.quantization import NumberFormat, QuantizedGraph, Scheme, block_notes
from toolchain.quantization.normal_means import batch_norm_means
from toolchain.quantization.range_methods import PERCENT, RangeMethod, choose_range
from toolchain.samples import SampleSet
from toolchain.stages.inputs import input_types
from toolchain.stages.stage import Stage
from toolchain.stages.states import CalibratedModel, QuantizedModel

if TYPE_CHECKING:
    from toolchain.ladder.climb import Climb
    from toolchain.ladder.settings import Settings


class Method(StrEnum):
    """How a network is rounded: as the options say, or by the ladder, which goes from cheap to dear as far as `goal`
    needs."""

    GIVEN = "given"
    AUTO = "auto"


class Rounding(StrEnum):
    """How weights are rounded: to nearest; so that each layer's result changes least (second order); by gradient
    descent from there, layer by layer (AdaRound) or block by block (BRECQ)."""

    NEAREST = "nearest"
    SECOND_ORDER = "second_order"
    ADAROUND = "adaround"
    BLOCK = "block"


class BiasMeans(StrEnum):
    """Where the channel means come from that biases are corrected with: measured on the samples, or what batch norms
    remember of training."""

    SAMPLES = "samples"
    BATCH_NORM = "batch_norm"


_CHOICES: dict[str, type[StrEnum]] = {
    "method": Method,
    "numbers": NumberFormat,
    "ranges": RangeMethod,
    "rounding": Rounding,
    "bias_means": BiasMeans,
}


_BLOCKS = (32, 64, 128)
"""Sizes of blocks that both runtimes have fast kernels for."""


@dataclass(frozen=True, kw_only=True)
class Quantize(Stage[CalibratedModel, QuantizedModel]):
    """Quantization after `scheme`, in the number format `numbers` (w8a8 is what the device asks for).

    `weight_bits` (2 to 8) narrows the integers of weights. `weight_block` (32, 64 or 128) is how many inputs share a
    scale where the format has scales of blocks, by default 32. `percentile` is the share of values that the percentile
    method keeps, in percent; `equalise` brings channels near to each other first; `correct_bias` takes the mean shift
    of rounded weights out of the biases, `bias_means` says whose means; `rounding` says how weights are rounded. With
    `method = "auto"` these are where the ladder starts: it climbs until `goal` is met on `samples`, judging the files
    of `formats` by `metric` where one is given, and takes one of `alternatives` where nothing else helps. `most_bytes`
    is what all weights may take: some get 4 bits then. `seconds` is about how long learning may last, `seed` what it
    draws from.

    Raises UnsupportedError where an op has no integer kernel, OptionError where an option needs samples or histograms
    that were not given.
    """

    name = "quantize"
    takes = (CalibratedModel,)
    gives = QuantizedModel

    method: Method = Method.GIVEN
    scheme: Scheme = field(default_factory=Scheme)
    numbers: NumberFormat = NumberFormat.W8A8
    weight_bits: int | None = None
    weight_block: int | None = None
    ranges: RangeMethod = RangeMethod.MINMAX
    percentile: float = PERCENT
    equalise: bool = False
    correct_bias: bool = True
    bias_means: BiasMeans = BiasMeans.SAMPLES
    rounding: Rounding = Rounding.NEAREST
    samples: SampleSet | None = None
    formats: tuple[Format, ...] = (Format.ONNX, Format.TFLITE)
    goal: Goal = Goal(sqnr_db=20.0, score_drop=1.0)
    metric: Metric | None = None
    alternatives: tuple[NumberFormat, ...] = (NumberFormat.FLOAT32, NumberFormat.DYNAMIC_INT8)
    most_bytes: int | None = None
    seconds: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        findings = []
        if not isinstance(self.percentile, (int, float)) or not 50 < self.percentile <= 100:
            findings.append(f"percentile must lie in (50, 100], not {self.percentile!r}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in list(known):
                findings.append(f"{name} is {getattr(self, name)!r}: choose {' or '.join(known)}")
        if self.weight_bits is not None and (not isinstance(self.weight_bits, int) or not 2 <= self.weight_bits <= 8):
            findings.append(f"weight_bits is {self.weight_bits!r}: give a whole number from 2 to 8")
        if self.weight_block is not None and self.weight_block not in _BLOCKS:
            findings.append(f"weight_block is {self.weight_block!r}: choose {', '.join(map(str, _BLOCKS))}")
        elif self.weight_block is not None and self.numbers != NumberFormat.W4_BLOCK:
            findings.append(f"weight_block goes with numbers = w4_block, not {self.numbers}")
        if self.needs_samples and not isinstance(self.samples, SampleSet):
            findings.append("samples are needed for this: give a SampleSet, or toolchain.samples_from(...)")
        if self.bias_means == BiasMeans.BATCH_NORM and (self.equalise or self.method == Method.AUTO):
            findings.append("bias_means = batch_norm is of the graph as traced, which equalise and auto change")
        raise_collected(OptionError, "quantize cannot work with these options:", findings)

    @property
    def needs_samples(self) -> bool:
        """Whether the stage looks at samples, or at statistics alone."""
        measures = self.method == Method.AUTO or self.ranges == RangeMethod.AUTO
        return measures or self.equalise or self.rounding != Rounding.NEAREST

    def options(self) -> dict[str, Any]:
        """Samples count only where they are looked at, and what the ladder works with only where it is climbed."""
        found = super().options()
        if not self.needs_samples:
            found |= {"samples": None, "seed": 0, "seconds": 0.0}
        if self.method != Method.AUTO:
            found |= {"formats": None, "goal": None, "metric": None, "alternatives": None}
        return found

    def _run(self, model: CalibratedModel, progress: Progress) -> QuantizedModel:
        from toolchain.ladder.climb import Climb

        settings = self._settings(model)
        made = self._climb(model, settings, progress) if self.needs_samples else settings.quantized()
        climbed, quantized = (made, made.model) if isinstance(made, Climb) else (None, made)
        per_channel = sum(p.axis is not None and p.block is None for p in quantized.params.values())
        facts: dict[str, Any] = {
            "tensors": len(quantized.params),
            "per_channel": per_channel,
            "float_nodes": len(quantized.float_nodes),
        }
        if (block := settings.scheme.weight_block) is not None:
            facts["per_block"] = sum(params.block is not None for params in quantized.params.values())
            facts["without_blocks"] = list(block_notes(quantized, block))
        if climbed is not None:
            facts |= {"goal": str(self.goal), "meets_goal": climbed.meets_goal}
            facts["ladder"] = [rung.to_plain() for rung in climbed.rungs]
        return QuantizedModel(
            graph=quantized.graph,
            reference=model.reference,
            structure=model.structure,
            params=quantized.params,
            corrections=quantized.corrections,
            float_nodes=quantized.float_nodes,
            reals=quantized.reals,
            history=model.recorded(self, facts, {r.name: r.seconds for r in climbed.rungs} if climbed else {}),
        )

    def _settings(self, model: CalibratedModel) -> Settings:
        from toolchain.ladder.settings import Settings

        statistics = model.statistics
        if self.bias_means == BiasMeans.BATCH_NORM:
            means = batch_norm_means(model.reference)
            statistics = {name: replace(found, means=means.get(name)) for name, found in statistics.items()}
        scheme = replace(self.scheme.with_numbers(self.numbers), weight_bits=self.weight_bits)
        if self.weight_block is not None:
            scheme = replace(scheme, weight_block=self.weight_block)
        method = RangeMethod.MINMAX if self.ranges == RangeMethod.AUTO else self.ranges
        try:
            ranges = {
                name: choose_range(
                    found,
                    method,
                    dtype=scheme.activation_dtype or DType.INT8,
                    symmetric=scheme.activation_symmetric,
                    percentile=self.percentile,
                )
                for name, found in statistics.items()
            }
        except ValueError as error:
            raise OptionError(str(error), hint="set histograms = true in the calibrate stage") from error
        return Settings(
            graph=model.graph,
            structure=model.structure,
            statistics=statistics,
            scheme=scheme,
            ranges=ranges,
            correct_bias=self.correct_bias,
            percentile=self.percentile,
        )

    def _climb(self, model: CalibratedModel, settings: Settings, progress: Progress) -> Climb | QuantizedGraph:
        """Up the ladder, or the rungs that the options name and no other."""
        from toolchain.ladder.climb import Footing, climb
        from toolchain.ladder.judge import Judge
        from toolchain.ladder.means import Means
        from toolchain.ladder.rungs import make_rungs, take_rungs

        assert self.samples is not None  # __post_init__ has seen to it
        samples = self.samples.checked(input_types(model.graph))
        means = Means(
            samples=samples,
            goal=self.goal,
            alternatives=self.alternatives,
            seed=self.seed,
            seconds=self.seconds,
            most_bytes=self.most_bytes,
            progress=progress,
        )
        if self.method == Method.GIVEN:
            return take_rungs(means, settings, self._asked()).model
        judge = Judge(model.reference, samples, self.formats, self.metric)
        means = replace(means, learn_from=judge.learning_batches or None)
        start = replace(settings, correct_bias=False)
        return climb(Footing(start, start.quantized()), make_rungs(means, judge), judge, self.goal, progress=progress)

    def _asked(self) -> tuple[str, ...]:
        """Names of the rungs that the options name."""
        wanted = {
            "measured ranges": self.ranges == RangeMethod.AUTO,
            "equalisation": self.equalise,
            "learned rounding": self.rounding == Rounding.SECOND_ORDER,
            "rounding by layers": self.rounding == Rounding.ADAROUND,
            "rounding by blocks": self.rounding == Rounding.BLOCK,
        }
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)
