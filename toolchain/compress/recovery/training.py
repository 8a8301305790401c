"""The training loop of recovery: any objective, any batches, masks tightened on the way, resumable to the bit.

Rates follow a schedule after a linear warm-up; u runs from 0 after the warm-up to 1 at the end:

    constant  1          linear  1 - u          cosine  (1 + cos(pi u)) / 2

Everything that decides the next step is in the module, the optimizer, torch's random state and the step's number, and
that is what a checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import cos, isfinite, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolchain.compress.recovery.batch_norm import has_batch_norms, reestimate
from toolchain.compress.recovery.batches import Batches
from toolchain.compress.recovery.checkpoint import Checkpoint
from toolchain.compress.recovery.choices import BatchNorm, Device, Optimizer, Schedule
from toolchain.compress.recovery.objective import Objective
from toolchain.compress.recovery.ranks import find_ranks
from toolchain.compress.recovery.teaching import Teacher, tensors_of
from toolchain.compress.recovery.validation import Point, Validation
from toolchain.engine.module import GraphModule
from toolchain.engine.threads import one_thread
from toolchain.errors import OptionError
from toolchain.progress import SILENT, Progress
from toolchain.samples import Batch


@dataclass(frozen=True, kw_only=True)
class Training:
    """How weights are moved. `warmup` is the share of steps in which the rate rises, `clip_norm` bounds the norm of all
    gradients together, `patience` is how many epochs the validation may go without a new best (None: all). Batches are
    shuffled by whoever gives them; `seed` is torch's."""

    epochs: int
    learning_rate: float = 1e-4
    optimizer: Optimizer = Optimizer.ADAM
    weight_decay: float = 0.0
    schedule: Schedule = Schedule.COSINE
    warmup: float = 0.0
    clip_norm: float | None = None
    patience: int | None = None
    seed: int = 0
    device: Device = Device.AUTO
    batch_norm: BatchNorm = BatchNorm.REESTIMATED

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step number `step` of `steps`."""
        rising = self.warmup * steps
        if step < rising:
            return self.learning_rate * (step + 1) / (rising + 1)
        done = min((step - rising) / max(steps - rising, 1), 1.0)
        falls = {Schedule.CONSTANT: 1.0, Schedule.LINEAR: 1 - done, Schedule.COSINE: 0.5 + 0.5 * cos(pi * done)}
        return self.learning_rate * falls[Schedule(self.schedule)]

    def make_optimizer(self, module: GraphModule) -> torch.optim.Optimizer:
        """Over the parameters of `module`; learned steps are not decayed."""
        steps = module.step_parameters()
        learned = [parameter for _, parameter in in_order(module) if all(parameter is not step for step in steps)]
        groups: list[dict[str, Any]] = [
            {"params": learned, "weight_decay": self.weight_decay},
            {"params": list(steps), "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if self.optimizer == Optimizer.SGD:
            return torch.optim.SGD(groups, lr=self.learning_rate, momentum=0.9)
        kind = torch.optim.AdamW if self.optimizer == Optimizer.ADAMW else torch.optim.Adam
        return kind(groups, lr=self.learning_rate)


@dataclass(frozen=True)
class Curve:
    """Mean loss of each epoch, what was validated before (epoch 0) and after epochs, and the epoch whose weights were
    kept. `steps` is how many steps were made."""

    losses: tuple[float, ...]
    points: tuple[Point, ...] = ()
    kept: int | None = None
    steps: int = 0

    def to_plain(self) -> dict[str, Any]:
        """As JSON values."""
        points = [point.to_plain() for point in self.points]
        return {"losses": list(self.losses), "validation": points, "kept_epoch": self.kept, "steps": self.steps}


def train(
    module: GraphModule,
    objective: Objective,
    batches: Batches,
    training: Training,
    *,
    steps_per_epoch: int,
    on_step: Callable[[int, int], None] | None = None,
    validation: Validation | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress = SILENT,
    description: str = "train",
) -> Curve:
    """Train `module` in place, on one thread. Deterministic for a seed.

    `batches(epoch)` gives the batches of an epoch, the same at every call; `steps_per_epoch` is how many.
    `on_step(step, steps)` is called before each step and may tighten masks. With `validation` the weights of the best
    epoch are kept, the untrained ones included, and training ends where its goal is met. With `checkpoint` what a
    killed run had reached is taken up again. Raises OptionError for a loss that is not finite or labels that are not
    there.
    """
    with _reproducible(training.seed):
        loop = _Loop(module, objective, training, steps_per_epoch * training.epochs, validation)
        loop.teacher.keep(batches(0))
        if validation is not None:
            loop.teacher.keep(validation.batches())
        if checkpoint is None or not loop.resume(checkpoint):
            loop.validate(0)
        loop.begin()
        ticks = progress.track(range(loop.steps), description=description, total=loop.steps)
        loop.run(batches, islice(ticks, loop.step, None), steps_per_epoch, on_step, checkpoint)
        return loop.finish()


@dataclass
class _Loop:
    """One training run as it stands."""

    module: GraphModule
    objective: Objective
    training: Training
    steps: int
    validation: Validation | None
    step: int = 0
    losses: list[float] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    epoch_losses: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ranks = find_ranks(_device(self.training.device))
        self.device = self.ranks.device
        self.came_on = next((p.device for p in self.module.parameters()), self.device)
        self.module.to(self.device)
        self.module.watch(self.objective.features)
        self.teacher = Teacher(self.objective, self.device)
        self.started = {name: p.detach().clone() for name, p in in_order(self.module)}
        self.optimizer = self.training.make_optimizer(self.module)
        self.called, self.stepped = self.ranks.prepare(self.module, self.optimizer)

    def run(
        self,
        batches: Batches,
        ticks: Iterator[int],
        steps_per_epoch: int,
        on_step: Callable[[int, int], None] | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        """The epochs that are left, from the middle of one where a checkpoint was written there."""
        for epoch in range(self.step // max(steps_per_epoch, 1), self.training.epochs):
            if self.is_over():
                break
            for batch in islice(batches(epoch), self.step % max(steps_per_epoch, 1), None):
                next(ticks, None)
                if on_step is not None:
                    on_step(self.step, self.steps)
                self.learn(batch)
                if self.step % max(steps_per_epoch, 1):
                    self.keep(checkpoint)
            self.end_epoch(epoch + 1, batches)
            self.keep(checkpoint)

    def learn(self, batch: Batch) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.rate(self.step, self.steps)
        batch = self.ranks.share(batch)
        inputs = tensors_of(batch, self.device)
        targets = self.teacher.targets(batch, inputs)
        self.optimizer.zero_grad()
        outputs = self.called(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self.objective.loss(outputs, self.module.seen, targets)
        if self.objective.weight_pull:
            loss = loss + self.objective.weight_pull * drift(self.module, self.started)
        value = self.ranks.mean(float(loss.detach()))
        if not isfinite(value):
            raise OptionError(
                f"the loss is {value} at step {self.step + 1}", hint="lower the learning rate, or mend the loss"
            )
        self.ranks.backward(loss)
        if self.training.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([p for _, p in in_order(self.module)], self.training.clip_norm)
        self.stepped.step()
        self.epoch_losses.append(value)
        self.step += 1

    def begin(self) -> None:
        """Ready for the next step."""
        if self.training.batch_norm == BatchNorm.BATCH:
            self.module.use_batch_statistics()

    def end_epoch(self, epoch: int, batches: Batches) -> None:
        self.losses.append(float(np.mean(self.epoch_losses)) if self.epoch_losses else 0.0)
        self.epoch_losses = []
        if self.training.batch_norm != BatchNorm.FROZEN and has_batch_norms(self.module):
            reestimate(self.module, batches(epoch), self.device)
        self.validate(epoch)
        self.begin()

    def validate(self, epoch: int) -> None:
        if self.validation is None:
            return
        measure = self.validation.measure
        point = self.ranks.from_first(lambda: measure(self.module, self.teacher, epoch))
        if not self.points or point.rank > max(other.rank for other in self.points):
            self.best = {name: t.detach().clone() for name, t in self.module.state_dict().items()}
        self.points.append(point)

    def is_over(self) -> bool:
        """Whether the goal is met, or the patience at its end."""
        if self.validation is None or not self.points:
            return False
        if self.validation.is_met(self.points[-1]):
            return True
        waited = len(self.points) - 1 - self._best_place()
        return self.training.patience is not None and waited >= self.training.patience

    def finish(self) -> Curve:
        kept = None
        if self.points:
            kept = self.points[self._best_place()].epoch
            self.module.load_state_dict(self.best)
        self.module.watch(())
        self.module.use_batch_statistics(None)
        self.module.to(self.came_on)
        return Curve(tuple(self.losses), tuple(self.points), kept, self.step)

    def _best_place(self) -> int:
        ranks = [point.rank for point in self.points]
        return ranks.index(max(ranks))

    # ---- checkpoints ---------------------------------------------------------------------------------------

    def keep(self, checkpoint: Checkpoint | None) -> None:
        """Write a checkpoint where it is time to; of several processes the first does."""
        if checkpoint is not None and self.ranks.is_first:
            checkpoint.save_soon(self.state)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON values that a run goes on from."""
        tensors = {f"module/{name}": t for name, t in self.module.state_dict().items()}
        tensors |= {f"best/{name}": t for name, t in self.best.items()}
        tensors |= {f"mask/{name}": torch.from_numpy(m.copy()) for name, m in self.module.masks.items()}
        plain: dict[str, Any] = {"step": self.step, "losses": self.losses, "epoch_losses": self.epoch_losses}
        plain["points"] = [point.to_plain() for point in self.points]
        plain["optimizer"] = {}
        for place, held in self.optimizer.state_dict()["state"].items():
            for key, value in held.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{place}/{key}"] = value
                elif value is not None:
                    plain["optimizer"][f"{place}/{key}"] = value
        tensors["random"] = torch.get_rng_state()
        return tensors, plain

    def resume(self, checkpoint: Checkpoint) -> bool:
        """Take up what `checkpoint` holds; False where it holds nothing for this run."""
        found = self.ranks.from_first(checkpoint.load)
        if found is None:
            return False
        tensors, plain = found
        self.module.load_state_dict(_under("module/", tensors))
        self.module.set_masks({name: mask.numpy() for name, mask in _under("mask/", tensors).items()})
        self.best = _under("best/", tensors)
        self._resume_optimizer(_under("optimizer/", tensors), plain["optimizer"])
        torch.set_rng_state(tensors["random"])
        self.step, self.losses, self.epoch_losses = plain["step"], plain["losses"], plain["epoch_losses"]
        self.points = [Point.from_plain(point) for point in plain["points"]]
        return True

    def _resume_optimizer(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        state: dict[int, dict[str, Any]] = {}
        for key, value in (*tensors.items(), *plain.items()):
            place, _, name = key.partition("/")
            state.setdefault(int(place), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def in_order(module: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """Parameters by name: a model that was saved and loaded holds them in another order, and sums and optimizers must
    not see that."""
    return sorted(module.named_parameters(), key=lambda item: item[0])


def drift(module: torch.nn.Module, started: Mapping[str, Tensor]) -> Tensor:
    """How far the parameters are from where they started, relative to their size: a scalar. What started at zero
    (biases of new layers, factors of learned steps) has no size to compare with, and no part in it."""
    moved = [
        (parameter - started[name]).square().sum() / size
        for name, parameter in in_order(module)
        if (size := started[name].square().sum()) > 0
    ]
    return torch.stack(moved).sum() / len(moved) if moved else torch.zeros(())


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), one_thread():
        torch.manual_seed(seed)
        yield


def _device(name: str) -> torch.device:
    if name == Device.AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == Device.CUDA and not torch.cuda.is_available():
        raise OptionError("device is cuda, and torch finds none", hint="use device = auto")
    return torch.device(name)
