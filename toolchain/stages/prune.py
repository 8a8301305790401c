"""prune: channels by dependency groups, single weights and blocks of them, or whole layers; a plan first, then the
cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.compress.pruning.choices import (
    NEEDS_SAMPLES,
    OF_WEIGHTS,
    Importance,
    Measure,
    Only,
    PruneSchedule,
    Scope,
)
from toolchain.compress.pruning.patterns import SINGLE, Pattern, parse_pattern
from toolchain.compress.recovery.choices import BatchNorm, Task
from toolchain.errors import OptionError, OrderError, raise_collected
from toolchain.formats.artifact import Format
from toolchain.progress import SILENT, Progress
from toolchain.samples import Batch, SampleSet
from toolchain.stages.inputs import input_types
from toolchain.stages.stage import Stage
from toolchain.stages.states import TracedModel

if TYPE_CHECKING:
    from toolchain.compress.pruning.latency import LatencyModel
    from toolchain.compress.pruning.magnitude import MagnitudePlan
    from toolchain.compress.pruning.schedule import Plan, Pruned, Trainer
    from toolchain.compress.pruning.structured import Request


class PruneKind(StrEnum):
    """What is removed: `channels` and whole `layers` make every file smaller and faster, `weights` (zeros) pay only
    where zeros do."""

    CHANNELS = "channels"
    WEIGHTS = "weights"
    LAYERS = "layers"


LATENCY_VARIANTS = 24
"""Networks measured to predict the latency of all others."""


@dataclass(frozen=True, kw_only=True)
class Prune(Stage[TracedModel, TracedModel]):
    """Remove the share `ratio` of the channels of each group, of the weights of each tensor, or of the layers.

    `importance` says which go (`toolchain.compress.pruning.importance`: by default `path` for channels, `l1` for
    weights; layers are ranked by the error at the outputs), `scope` whether each layer loses its share (`local`), all
    together what matters least (`global`), or for weights each output channel its share (`output`). `of` is what the
    ratio is a share of: `count`, or `macs`, `parameters`, `bytes` or `latency` of channels or layers. Latency is
    predicted from measurements on this machine in the `runtime`, of int8 files where `int8_latency`. For weights,
    `pattern` is `N:M` (the ratio is then 1 - N/M) or blocks, outputs x inputs, as `1x4`, `4x1` or `8x*`, and `only =
    "pointwise"` leaves all but 1x1 convolutions alone, the others' zeros being multiplied on CPUs all the same. For
    channels, `round_to` is the multiple that what is kept is rounded up to.

    `schedule` is `one_shot`, `iterative` (`rounds`, each trained after) or `gradual` (while training, the cubic
    schedule); `epochs` are those of one training towards the reference's outputs, or with `loss = cross_entropy` by
    labels. `samples` are what is measured and trained on, `seed` is what is drawn and shuffled from.
    """

    name = "prune"
    takes = (TracedModel,)
    gives = TracedModel

    ratio: float
    kind: PruneKind = PruneKind.CHANNELS
    importance: Importance | None = None
    scope: Scope = Scope.LOCAL
    of: Measure = Measure.COUNT
    pattern: str | None = None
    only: Only | None = None
    round_to: int = 1
    schedule: PruneSchedule = PruneSchedule.ONE_SHOT
    rounds: int = 1
    epochs: int = 0
    learning_rate: float = 1e-3
    loss: Task = Task.OUTPUTS
    batch_norm: BatchNorm = BatchNorm.REESTIMATED
    runtime: Format = Format.TFLITE
    int8_latency: bool = True
    samples: SampleSet | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        findings = [*self._numbers(), *self._choices()]
        findings = findings or [*self._kind_findings(), *self._schedule_findings(), *self._sample_findings()]
        raise_collected(OptionError, "prune cannot work with these options:", findings)

    def _numbers(self) -> list[str]:
        findings = []
        if not isinstance(self.ratio, (int, float)) or not 0 <= self.ratio < 1:
            findings.append(f"ratio is {self.ratio!r}: give the share that goes, from 0 to less than 1")
        for name, example in (("round_to", 8), ("rounds", 4)):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                findings.append(f"{name} is {value!r}: give a whole number from 1, such as {example}")
        for name in ("epochs", "seed"):
            if not isinstance(value := getattr(self, name), int) or value < 0:
                findings.append(f"{name} is {value!r}: give a whole number from 0")
        rate = self.learning_rate
        if not isinstance(rate, (int, float)) or not isfinite(rate) or rate <= 0:
            findings.append(f"learning_rate is {rate!r}: give a positive number")
        return findings

    def _choices(self) -> list[str]:
        choices: dict[str, type[StrEnum]] = {
            "kind": PruneKind,
            "scope": Scope,
            "of": Measure,
            "schedule": PruneSchedule,
            "loss": Task,
            "batch_norm": BatchNorm,
            "runtime": Format,
        }
        findings = [
            f"{name} is {getattr(self, name)!r}: choose {' or '.join(known)}"
            for name, known in choices.items()
            if getattr(self, name) not in list(known)
        ]
        if self.importance is not None and self.importance not in list(Importance):
            findings.append(f"importance is {self.importance!r}: choose one of {', '.join(Importance)}")
        if self.only is not None and self.only not in list(Only):
            findings.append(f"only is {self.only!r}: leave it out, or choose {', '.join(Only)}")
        if self.pattern is not None and parse_pattern(str(self.pattern)) is None:
            findings.append(f"pattern is {self.pattern!r}: give N:M such as 2:4, or blocks such as 1x4, 4x1 or 8x*")
        if self.samples is not None and not isinstance(self.samples, SampleSet):
            findings.append("samples must be a SampleSet: wrap yours with toolchain.samples_from(...)")
        return findings

    def _kind_findings(self) -> list[str]:
        """What does not go with the kind; the options are known to be of their types."""
        findings = []
        of_weights = self.kind == PruneKind.WEIGHTS
        if of_weights and self.importance is not None and self.importance not in OF_WEIGHTS:
            findings.append(f"importance {self.importance} is one of channels: choose {', '.join(sorted(OF_WEIGHTS))}")
        if of_weights and self.of != Measure.COUNT:
            findings.append(f"of is {self.of}: zeros are counted, leave it out")
        if not of_weights and self.pattern is not None:
            findings.append(f"pattern {self.pattern} is one of weights: set kind = weights")
        if not of_weights and self.only is not None:
            findings.append(f"only = {self.only} is one of weights: set kind = weights")
        if not of_weights and self.scope == Scope.OUTPUT:
            findings.append("scope output is one of weights: choose local or global")
        if self.kind == PruneKind.LAYERS and self.importance is not None:
            findings.append("layers are ranked by the outputs' error: leave importance out")
        pattern = self._pattern()
        if pattern.is_fine and abs(pattern.ratio - self.ratio) > 1e-9:
            findings.append(f"ratio is {self.ratio}, but {self.pattern} takes {pattern.ratio:g}: give that")
        if pattern.is_fine and self.scope == Scope.GLOBAL:
            findings.append(f"pattern {self.pattern} takes the same everywhere: leave scope out")
        return findings

    def _schedule_findings(self) -> list[str]:
        findings: list[str] = []
        if self.schedule == PruneSchedule.ONE_SHOT:
            return findings
        if self.epochs < 1:
            findings.append(f"schedule {self.schedule} trains: give epochs, such as 5")
        if self.schedule == PruneSchedule.GRADUAL and self.kind == PruneKind.LAYERS:
            findings.append("a layer cannot go gradually: choose schedule iterative or one_shot")
        if self.schedule == PruneSchedule.ITERATIVE and self.rounds < 2:
            findings.append("schedule iterative goes in rounds: give rounds, such as 4")
        return findings

    def _sample_findings(self) -> list[str]:
        if self.samples is not None:
            return []
        findings = []
        if self._importance in NEEDS_SAMPLES and self.kind != PruneKind.LAYERS:
            findings.append(f"importance {self._importance} is measured on samples: give some, or choose path or l1")
        if self.kind == PruneKind.LAYERS:
            findings.append("what a layer is worth is measured on samples: give some")
        if self.epochs:
            findings.append("training needs samples: give some, or leave epochs out")
        return findings

    @property
    def _importance(self) -> Importance:
        if self.importance is None:
            return Importance.L1 if self.kind == PruneKind.WEIGHTS else Importance.PATH
        return Importance(self.importance)

    def _pattern(self) -> Pattern:
        return (parse_pattern(self.pattern) if self.pattern else None) or SINGLE

    @property
    def needs_samples(self) -> bool:
        """Whether anything is measured or trained."""
        return bool(self.epochs) or self.kind == PruneKind.LAYERS or self._importance in NEEDS_SAMPLES

    def options(self) -> dict[str, Any]:
        """Samples count only where something looks at them; the importance is told by its name."""
        told = {} if self.kind == PruneKind.LAYERS else {"importance": self._importance.value}
        return super().options() | told | ({} if self.needs_samples else {"samples": None})

    def _run(self, model: TracedModel, progress: Progress) -> TracedModel:
        return self._resume(model, progress, None)

    def _resume(self, model: TracedModel, progress: Progress, checkpoints: Path | None) -> TracedModel:
        self._check_order(model)
        cost = self._latency(model)
        trainer = self._trainer(model, progress, checkpoints) if self.epochs else None
        pruned = self._pruned(model, cost, trainer, progress)
        facts: dict[str, Any] = {"kind": str(self.kind), **pruned.plans[-1].facts()}
        if len(pruned.plans) > 1:
            facts["rounds"] = [plan.facts() for plan in pruned.plans[:-1]]
        if pruned.curves:
            facts["training"] = [curve.to_plain() for curve in pruned.curves]
        facts |= _latency_facts(cost)
        return model.after(self, facts=facts, graph=pruned.graph, structure=pruned.structure)

    def _pruned(
        self, model: TracedModel, cost: LatencyModel | None, trainer: Trainer | None, progress: Progress
    ) -> Pruned:
        from toolchain.compress.pruning.schedule import prune_channels, prune_layers, prune_weights

        given = (model.graph, model.structure)
        when: dict[str, Any] = {"schedule": PruneSchedule(self.schedule), "rounds": self.rounds, "trainer": trainer}
        samples = lambda: self._batches(model, progress)  # noqa: E731
        if self.kind == PruneKind.CHANNELS:
            return prune_channels(*given, self._request(cost), samples, **when)
        if self.kind == PruneKind.WEIGHTS:
            plan = self._weight_plan(model, progress)
            return prune_weights(*given, plan, samples, seed=self.seed, **when)
        rounds = self.rounds if self.schedule == PruneSchedule.ITERATIVE else 1
        of = Measure(self.of)
        return prune_layers(*given, samples, ratio=self.ratio, of=of, cost=cost, rounds=rounds, trainer=trainer)

    def plan(self, model: TracedModel, *, progress: Progress = SILENT) -> Plan:
        """What would go at once, why and what it saves; `print` it. Nothing is touched."""
        from toolchain.compress.pruning.layers import plan_layers
        from toolchain.compress.pruning.structured import plan_channels

        self._check_order(model)
        if self.kind == PruneKind.WEIGHTS:
            return self._weight_plan(model, progress)
        cost = self._latency(model)
        batches = self._batches(model, progress)
        if self.kind == PruneKind.CHANNELS:
            return plan_channels(model.graph, self._request(cost), batches)
        return plan_layers(model.graph, ratio=self.ratio, of=Measure(self.of), batches=batches, cost=cost)

    def _check_order(self, model: TracedModel) -> None:
        if self.kind == PruneKind.WEIGHTS and model.structure.codebooks:
            raise OrderError("pruned weights would leave their codebooks", hint="put prune before cluster")

    def _weight_plan(self, model: TracedModel, progress: Progress) -> MagnitudePlan:
        from toolchain.compress.pruning.magnitude import plan_weights, weight_names

        return plan_weights(
            model.graph,
            self.ratio,
            model.structure,
            importance=self._importance,
            scope=Scope(self.scope),
            pattern=self._pattern(),
            names=weight_names(model.graph, None if self.only is None else Only(self.only)),
            batches=self._batches(model, progress),
            seed=self.seed,
        )

    def _request(self, cost: LatencyModel | None) -> Request:
        from toolchain.compress.pruning.structured import Request

        return Request(
            ratio=self.ratio,
            importance=self._importance,
            scope=Scope(self.scope),
            of=Measure(self.of),
            round_to=self.round_to,
            seed=self.seed,
            cost=cost,
        )

    def _latency(self, model: TracedModel) -> LatencyModel | None:
        """A model of the latency, fitted to measurements, where it is asked for."""
        if self.of != Measure.LATENCY:
            return None
        from toolchain.compress.pruning.latency import fit_latency, make_variants
        from toolchain.quantization import Scheme
        from toolchain.stages.latency import measure_latencies

        variants = make_variants(
            model.graph,
            LATENCY_VARIANTS,
            channels=self.kind != PruneKind.LAYERS,
            layers=self.kind == PruneKind.LAYERS,
            round_to=self.round_to,
            seed=self.seed,
        )
        scheme = Scheme() if self.int8_latency else None
        measured = measure_latencies(variants, runtime=Format(self.runtime), scheme=scheme)
        return fit_latency(variants, measured, step=max(self.round_to, 8))

    def _trainer(self, model: TracedModel, progress: Progress, checkpoints: Path | None) -> Trainer:
        from toolchain.compress.pruning.schedule import Trainer
        from toolchain.compress.recovery.batches import EpochBatches, runnable_samples
        from toolchain.compress.recovery.objective import Objective
        from toolchain.compress.recovery.training import Training

        assert self.samples is not None  # __post_init__ has seen to it
        samples = runnable_samples(self.samples.checked(input_types(model.graph)), model.graph)
        training = Training(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_norm=BatchNorm(self.batch_norm),
            seed=self.seed,
        )
        objective = Objective(task=Task(self.loss), teacher=model.reference)
        batches = EpochBatches(samples=samples, seed=self.seed)
        determined = json.dumps([self.determined_by(), model.digest], sort_keys=True, default=str)
        return Trainer(
            objective=objective,
            training=training,
            batches=batches,
            progress=progress,
            checkpoints=checkpoints,
            belongs_to=hashlib.sha256(determined.encode()).hexdigest(),
        )

    def _batches(self, model: TracedModel, progress: Progress) -> Iterable[Batch] | None:
        measured = self.kind == PruneKind.LAYERS or self._importance in NEEDS_SAMPLES
        if self.samples is None or not measured:
            return None
        checked = self.samples.checked(input_types(model.graph)).calibration()
        total = -(-self.samples.calibration_count // self.samples.batch_size)
        return iter(progress.track(checked, description="prune", total=total))


def _latency_facts(cost: LatencyModel | None) -> Mapping[str, Any]:
    if cost is None:
        return {}
    return {"latency_model": {"networks": LATENCY_VARIANTS, "error": cost.error, "worst": cost.worst}}
