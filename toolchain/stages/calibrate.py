"""calibrate: fold the graph, then measure every activation on the calibration samples in one streaming pass."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.errors import OptionError
from toolchain.graph import fold, fold_structure
from toolchain.progress import Progress
from toolchain.samples import SampleSet
from toolchain.stages.inputs import input_types
from toolchain.stages.stage import Stage
from toolchain.stages.states import CalibratedModel, TracedModel


@dataclass(frozen=True, kw_only=True)
class Calibrate(Stage[TracedModel, CalibratedModel]):
    """Extremes, channel means and a histogram of every activation over `samples`. Without `histograms` ranges can only
    be minima and maxima, or moving averages of them; counting takes about 5 % of running the model.

    Memory does not depend on the number of samples. Raises SampleError where a sample does not fit the model.
    """

    name = "calibrate"
    takes = (TracedModel,)
    gives = CalibratedModel

    samples: SampleSet
    histograms: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.samples, SampleSet):
            raise OptionError("samples must be a SampleSet", hint="wrap yours: toolchain.samples_from(...)")

    def _run(self, model: TracedModel, progress: Progress) -> CalibratedModel:
        from toolchain.engine.observe import observe

        graph = fold(model.graph)
        batches = (batch.inputs for batch in self.samples.checked(input_types(graph)).calibration())
        total = -(-self.samples.calibration_count // self.samples.batch_size)
        tracked = progress.track(batches, description="calibrate", total=total)
        statistics = observe(graph, tracked, histograms=self.histograms)
        return CalibratedModel(
            graph=graph,
            reference=model.reference,
            structure=fold_structure(model.structure, model.graph, graph),
            statistics=statistics,
            history=model.recorded(self, {"samples": self.samples.calibration_count, "set": self.samples.name}),
        )
