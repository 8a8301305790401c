"""recover: distillation from the float reference wins back what compression and rounding cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar

import numpy as np

from toolchain.errors import OptionError, raise_collected
from toolchain.progress import Progress
from toolchain.samples import SampleSet
from toolchain.stages.inputs import input_types
from toolchain.stages.stage import Stage
from toolchain.stages.states import Model, QuantizedModel, TracedModel

Trainable = TypeVar("Trainable", TracedModel, QuantizedModel)


@dataclass(frozen=True, kw_only=True)
class Recover(Stage[Any, Any]):
    """A few epochs of distillation on the calibration samples, labels not needed; masks, codebooks and the integer
    grid hold.

    A quantized model is trained through fake quantization, a traced one (after pruning, say) in float. Options as in
    `compress.recovery.distill.Distillation`. The model comes back unchanged where training did not bring it nearer to
    the reference.
    """

    name = "recover"
    takes = (TracedModel, QuantizedModel)
    gives = Model

    samples: SampleSet
    epochs: int = 3
    learning_rate: float = 1e-4
    temperature: float | None = None
    alpha: float = 1.0
    weight_pull: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        positive = {"epochs": self.epochs, "learning_rate": self.learning_rate, "temperature": self.temperature}
        findings = [
            f"{name} is {value!r}: give a positive number"
            for name, value in positive.items()
            if not (value is None and name == "temperature") and not _is_positive(value)
        ]
        if isinstance(self.epochs, float):
            findings.append(f"epochs is {self.epochs!r}: give a whole number")
        if not isinstance(self.samples, SampleSet):
            findings.append("samples must be a SampleSet: wrap yours with toolchain.samples_from(...)")
        raise_collected(OptionError, "recover cannot work with these options:", findings)

    @classmethod
    def result_of(cls, state: type) -> type:
        return state

    def _run(self, model: Trainable, progress: Progress) -> Trainable:
        from toolchain.compress.recovery.distill import Distillation, distill
        from toolchain.engine.run import runnable_batches

        module: Any = model.to_module()
        samples = self.samples.checked(input_types(model.graph))
        per_epoch = -(-samples.calibration_count // samples.batch_size)
        # the SQNR is measured once before and once after the epochs
        passes = iter(progress.track(range(self.epochs + 2), description="recover", total=self.epochs + 2))

        def batches() -> Iterator[Sequence[np.ndarray]]:
            next(passes, None)
            return runnable_batches(model.graph, (batch.inputs for batch in samples.calibration()))

        recipe = Distillation(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            alpha=self.alpha,
            weight_pull=self.weight_pull,
        )
        curve = distill(module, model.reference, batches, recipe, seed=self.seed, steps=per_epoch * self.epochs)
        next(passes, None)
        facts = {
            "losses": list(curve.losses),
            "sqnr_before_db": curve.sqnr_before_db,
            "sqnr_after_db": curve.sqnr_after_db,
        }
        recovered: Trainable = model.from_module(module)
        return recovered.after(self, facts=facts)


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and isfinite(value) and value > 0
