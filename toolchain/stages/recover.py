"""recover: training wins back what compression and rounding cost, with a teacher, labels or both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from toolchain.compress.recovery.choices import BatchNorm, Device, Optimizer, Schedule, Task
from toolchain.errors import OptionError, raise_collected
from toolchain.fidelity import Metric
from toolchain.graph import Graph, Structure
from toolchain.imports import import_callable, is_import_spec
from toolchain.ladder.goal import Fidelity, Goal
from toolchain.progress import Progress
from toolchain.samples import SampleSet
from toolchain.stages.inputs import input_types
from toolchain.stages.models import model_digest, teacher_model, traced_model
from toolchain.stages.stage import Stage, as_plain
from toolchain.stages.states import Model, QuantizedModel, TracedModel

if TYPE_CHECKING:
    from toolchain.compress.recovery.batches import EpochBatches
    from toolchain.compress.recovery.objective import Objective
    from toolchain.compress.recovery.training import Curve, Training
    from toolchain.compress.recovery.validation import Point

Trainable = TypeVar("Trainable", TracedModel, QuantizedModel)

_LEAST_HELD_BACK = 16
"""Fewer samples than this judge no epoch: then those that are learned from do."""


@dataclass(frozen=True, kw_only=True)
class Recover(Stage[Any, Any]):
    """Some epochs of training on the calibration samples; masks, codebooks and the integer grid hold.

    A quantized model is trained through fake quantization, a traced one (after pruning, say) in float. The epoch that
    does best on the share `validation` of the samples, which are held back, is kept; the model comes back unchanged
    where none did better. Training ends where a quantized model meets `goal` after an epoch (what comes after a float
    one still costs something, so that it goes on), and after `patience` epochs without a new best.

    Loss = task + alpha (soft + feature_weight features) + weight_pull regulariser, see
    `toolchain.compress.recovery.objective`. `loss` is `outputs` (nearness to the teacher's outputs, no labels needed),
    `cross_entropy` (with labels) or your own function (outputs, targets, labels) -> scalar, itself or as
    `package.module:function`. `temperature` adds soft classes. `features` names tensors (`name`, or
    `student=teacher`), `["auto"]` chooses some; `attention` adds the attention maps there are.

    `teacher` is the float reference, or the model that is named: one of the zoo, `package.module:function`, a .pt2
    file. `student` names a smaller model that takes the given one's place: it is trained from its own weights, before
    quantization only.

    `learned_steps` learns the scales of a quantized model as well (LSQ). `processes` > 1 shares each batch among so
    many processes through `accelerate`.
    """

    name = "recover"
    takes = (TracedModel, QuantizedModel)
    gives = Model

    samples: SampleSet
    epochs: int = 3
    learning_rate: float = 1e-4
    batch_size: int | None = None
    optimizer: Optimizer = Optimizer.ADAM
    weight_decay: float = 0.0
    schedule: Schedule = Schedule.COSINE
    warmup: float = 0.1
    clip_norm: float | None = None
    loss: Any = Task.OUTPUTS
    temperature: float | None = None
    alpha: float = 1.0
    features: tuple[str, ...] = ()
    attention: bool = False
    feature_weight: float = 1.0
    weight_pull: float = 1e-2
    teacher: Any = None
    student: Any = None
    learned_steps: bool = False
    batch_norm: BatchNorm = BatchNorm.REESTIMATED
    validation: float = 0.1
    patience: int | None = None
    goal: Goal | None = None
    metric: Metric | None = None
    device: Device = Device.AUTO
    processes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        raise_collected(OptionError, "recover cannot work with these options:", [*self._numbers(), *self._choices()])

    def _numbers(self) -> list[str]:
        positive = ("epochs", "learning_rate", "batch_size", "clip_norm", "temperature", "patience", "processes")
        findings = [
            f"{name} is {value!r}: give a positive number"
            for name in positive
            if not _is_number(value := getattr(self, name)) or value <= 0
            if not (value is None and name in ("batch_size", "clip_norm", "temperature", "patience"))
        ]
        findings += [
            f"{name} is {value!r}: give a number from 0"
            for name in ("weight_decay", "alpha", "feature_weight", "weight_pull")
            if not _is_number(value := getattr(self, name)) or value < 0
        ]
        findings += [
            f"{name} is {value!r}: give a share from 0 to less than 1"
            for name in ("warmup", "validation")
            if not _is_number(value := getattr(self, name)) or not 0 <= value < 1
        ]
        whole = ("epochs", "batch_size", "patience", "processes")
        return findings + [
            f"{name} is {value!r}: give a whole number"
            for name in whole
            if isinstance(value := getattr(self, name), float)
        ]

    def _choices(self) -> list[str]:
        choices = {"optimizer": Optimizer, "schedule": Schedule, "batch_norm": BatchNorm, "device": Device}
        findings = [
            f"{name} is {getattr(self, name)!r}: choose {' or '.join(known)}"
            for name, known in choices.items()
            if getattr(self, name) not in list(known)
        ]
        if not callable(self.loss) and self.loss not in list(Task) and not is_import_spec(str(self.loss)):
            findings.append(f"loss is {self.loss!r}: choose {' or '.join(Task)}, or give package.module:function")
        if not isinstance(self.samples, SampleSet):
            findings.append("samples must be a SampleSet: wrap yours with toolchain.samples_from(...)")
        return findings

    @classmethod
    def result_of(cls, state: type) -> type:
        return state

    def options(self) -> dict[str, Any]:
        """A model that is given itself is told by its digest."""
        models = {"teacher": self.teacher, "student": self.student}
        told = {n: m if m is None or isinstance(m, str) else model_digest(m) for n, m in models.items()}
        return super().options() | told

    def determined_by(self) -> dict[str, Any]:
        """The options, and what the user's own code and models are at present."""
        models = {"teacher": model_digest(self.teacher), "student": model_digest(self.student)}
        return {**self.options(), "loss_source": as_plain(self._loss()), "models": models}

    def steps(self, model: Model) -> int:
        """How many steps all epochs take on `model`."""
        return self.epochs * self._batches(model)[0].steps_per_epoch

    def _run(self, model: Trainable, progress: Progress) -> Trainable:
        return self._resume(model, progress, None)

    def _resume(self, model: Trainable, progress: Progress, checkpoints: Path | None) -> Trainable:
        from toolchain.compress.recovery.ranks import launched_processes
        from toolchain.compress.recovery.training import train

        if self.processes > 1 and launched_processes() == 1:
            return self._launch(model, progress, checkpoints)
        model, module = self._student(model, progress)
        learning, judging = self._batches(model)
        curve = train(
            module,
            self._objective(model, progress),
            learning,
            self._training(),
            steps_per_epoch=learning.steps_per_epoch,
            validation=self._validation(model, judging),
            checkpoint=self._checkpoint(model, checkpoints),
            progress=progress,
            description=self.name,
        )
        recovered: Trainable = model.from_module(module)
        return recovered.after(self, facts=self._facts(curve, learning, judging))

    def _launch(self, model: Trainable, progress: Progress, checkpoints: Path | None) -> Trainable:
        from toolchain.stages.workers import launch

        made, facts = launch(self, model, progress, checkpoints)
        recovered: Trainable = replace(made, history=model.history)
        return recovered.after(self, facts=facts)

    def _student(self, model: Trainable, progress: Progress) -> tuple[Trainable, Any]:
        if self.student is not None:
            if not isinstance(model, TracedModel):
                raise OptionError("a student takes a float model's place", hint="put recover before quantize")
            graph = traced_model(self.student, model.graph, progress, what="student")
            model = replace(model, graph=graph, structure=Structure())
        if not isinstance(model, QuantizedModel):
            return model, model.to_module()
        return model, model.to_module(learned_steps=self.learned_steps)

    def _batches(self, model: Model) -> tuple[EpochBatches, EpochBatches]:
        """What is learned from, and what judges each epoch."""
        from toolchain.compress.recovery.batches import EpochBatches, runnable_samples

        samples = self.samples.checked(input_types(model.graph))
        samples = samples if self.batch_size is None else samples.with_batch_size(self.batch_size)
        samples = runnable_samples(samples, model.graph)
        order = np.random.default_rng(self.seed).permutation(samples.calibration_count)
        held_back = int(self.validation * len(order))
        if held_back < _LEAST_HELD_BACK:
            both = EpochBatches(samples=samples, seed=self.seed)
            return both, both
        learning = EpochBatches(samples=samples, seed=self.seed, chosen=np.sort(order[held_back:]))
        return learning, replace(learning, chosen=np.sort(order[:held_back]))

    def _objective(self, model: Model, progress: Progress) -> Objective:
        from toolchain.compress.recovery.features import attention_maps, choose_features, named_features
        from toolchain.compress.recovery.objective import Objective

        teacher: Any = model.reference if self.teacher is None else teacher_model(self.teacher, model.graph, progress)
        features: dict[str, str] = {}
        if self.features or self.attention:
            if not isinstance(teacher, Graph):
                raise OptionError("features are told by a teacher that can be traced", hint="teach by outputs alone")
            if "auto" in self.features:
                features |= choose_features(model.graph, teacher)
            features |= named_features(model.graph, teacher, [name for name in self.features if name != "auto"])
            features |= attention_maps(model.graph, teacher) if self.attention else {}
        return Objective(
            task=self._loss(),
            teacher=teacher,
            temperature=self.temperature,
            alpha=self.alpha,
            features=features,
            feature_weight=self.feature_weight,
            weight_pull=self.weight_pull,
        )

    def _loss(self) -> Any:
        if isinstance(self.loss, str) and self.loss not in list(Task):
            return import_callable(self.loss, what="loss")
        return self.loss

    def _training(self) -> Training:
        from toolchain.compress.recovery.training import Training

        return Training(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup=self.warmup,
            clip_norm=self.clip_norm,
            patience=self.patience,
            seed=self.seed,
            device=self.device,
            batch_norm=self.batch_norm if self.student is None else BatchNorm.BATCH,
        )

    def _validation(self, model: Model, judging: EpochBatches) -> Any:
        from toolchain.compress.recovery.validation import Validation

        goal = self.goal if isinstance(model, QuantizedModel) else None
        by_labels = self.loss != Task.OUTPUTS
        return Validation(judging.in_order, _goal_test(goal), by_labels=by_labels, metric=self.metric)

    def _checkpoint(self, model: Model, folder: Path | None) -> Any:
        from toolchain.compress.recovery.checkpoint import Checkpoint

        if folder is None:
            return None
        determined = json.dumps([self.determined_by(), model.digest], sort_keys=True, default=str)
        return Checkpoint(folder, hashlib.sha256(determined.encode()).hexdigest())

    def _facts(self, curve: Curve, learning: EpochBatches, judging: EpochBatches) -> Mapping[str, Any]:
        first, kept = curve.points[0], next(point for point in curve.points if point.epoch == curve.kept)
        judged = "the samples that are learned from" if judging is learning else f"{judging.count} samples held back"
        return {
            "losses": list(curve.losses),
            "sqnr_before_db": first.sqnr_db,
            "sqnr_after_db": kept.sqnr_db,
            "kept_epoch": curve.kept,
            "steps": curve.steps,
            "learned_from": learning.count,
            "validated_on": judged,
            "validation": [point.to_plain() for point in curve.points],
        }


def _goal_test(goal: Goal | None) -> Callable[[Point], bool]:
    """Whether a point of the curve meets `goal`: by nearness and by the share of changed classes, which bounds how far
    a score can fall."""
    if goal is None:
        return lambda point: False

    def is_met(point: Point) -> bool:
        if point.epoch == 0 or point.sqnr_db is None or point.balanced_db is None:
            return False
        return goal.is_met(Fidelity(point.sqnr_db, point.balanced_db, point.same_class))

    return is_met


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
