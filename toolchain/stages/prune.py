"""prune: channels by dependency groups, or single weights by magnitude; a plan first, then the cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from toolchain.compress.pruning.importance import NEEDS_SAMPLES, Importance
from toolchain.compress.pruning.magnitude import MagnitudePlan, apply_masks, plan_magnitude
from toolchain.compress.pruning.structured import PruningPlan, apply, apply_structure, plan_pruning
from toolchain.errors import OptionError, OrderError, raise_collected
from toolchain.progress import SILENT, Progress
from toolchain.samples import SampleSet
from toolchain.stages.inputs import input_types
from toolchain.stages.stage import Stage
from toolchain.stages.states import TracedModel


class PruneKind(StrEnum):
    """What is removed: `channels` make every file smaller and faster, `weights` (zeros) pay only where zeros
    do."""

    CHANNELS = "channels"
    WEIGHTS = "weights"


@dataclass(frozen=True, kw_only=True)
class Prune(Stage[TracedModel, TracedModel]):
    """Remove `ratio` of the channels of each group, or of the weights of each tensor.

    For channels: `importance` says which go (see `toolchain.compress.pruning.importance`), `round_to` is the multiple
    that what is kept is rounded up to, `samples` are what `contribution` measures on, `seed` is what `random`
    draws from.
    """

    name = "prune"
    takes = (TracedModel,)
    gives = TracedModel

    ratio: float
    kind: PruneKind = PruneKind.CHANNELS
    importance: Importance = Importance.PATH
    round_to: int = 1
    samples: SampleSet | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        findings = []
        if not isinstance(self.ratio, (int, float)) or not 0 <= self.ratio < 1:
            findings.append(f"ratio is {self.ratio!r}: give the share that goes, from 0 to less than 1")
        if self.kind not in list(PruneKind):
            findings.append(f"kind is {self.kind!r}: choose {' or '.join(PruneKind)}")
        if self.importance not in list(Importance):
            findings.append(f"importance is {self.importance!r}: choose one of {', '.join(Importance)}")
        elif self.kind == PruneKind.CHANNELS and self.importance in NEEDS_SAMPLES and self.samples is None:
            findings.append(f"importance {self.importance} is measured on samples: give some, or choose path")
        if not isinstance(self.round_to, int) or self.round_to < 1:
            findings.append(f"round_to is {self.round_to!r}: give a whole number from 1, such as 8")
        if self.samples is not None and not isinstance(self.samples, SampleSet):
            findings.append("samples must be a SampleSet: wrap yours with toolchain.samples_from(...)")
        if not isinstance(self.seed, int) or self.seed < 0:
            findings.append(f"seed is {self.seed!r}: give a whole number from 0")
        raise_collected(OptionError, "prune cannot work with these options:", findings)

    def options(self) -> dict[str, Any]:
        """Samples count only where the importance looks at them."""
        unused = {} if self.importance in NEEDS_SAMPLES else {"samples": None}
        return super().options() | unused

    def _run(self, model: TracedModel, progress: Progress) -> TracedModel:
        plan = self.plan(model, progress=progress)
        facts: Mapping[str, Any] = {"kind": str(self.kind), **plan.facts()}
        if isinstance(plan, MagnitudePlan):
            structure = model.structure.with_masks(plan.masks)
            return model.after(self, facts=facts, graph=apply_masks(plan, model.graph), structure=structure)
        structure = apply_structure(plan, model.structure)
        return model.after(self, facts=facts, graph=apply(plan, model.graph), structure=structure)

    def plan(self, model: TracedModel, *, progress: Progress = SILENT) -> PruningPlan | MagnitudePlan:
        """What would go, why and what it saves; `print` it. Nothing is touched."""
        if self.kind == PruneKind.WEIGHTS:
            if model.structure.codebooks:
                raise OrderError("pruned weights would leave their codebooks", hint="put prune before cluster")
            return plan_magnitude(model.graph, self.ratio, model.structure)
        batches = self._batches(model, progress) if self.importance in NEEDS_SAMPLES else None
        return plan_pruning(
            model.graph,
            ratio=self.ratio,
            importance=Importance(self.importance),
            round_to=self.round_to,
            batches=batches,
            seed=self.seed,
        )

    def _batches(self, model: TracedModel, progress: Progress) -> Iterator[tuple[np.ndarray, ...]]:
        assert self.samples is not None  # __post_init__ has seen to it
        checked = self.samples.checked(input_types(model.graph)).calibration()
        total = -(-self.samples.calibration_count // self.samples.batch_size)
        return (batch.inputs for batch in progress.track(checked, description="prune", total=total))
