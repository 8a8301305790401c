"""What recovery training minimises: a task, distillation from a teacher, and a regulariser.

For outputs y of the student and t of the teacher, features f and g, and parameters w that started at w0,

    loss = task + alpha (soft + phi features) + lambda mean((w - w0)^2) / mean(w0^2)

    task      outputs         sum_k |y_k - t_k|^2 / |t_k|^2, the inverse signal-to-noise ratio; no labels needed
              cross_entropy   of the first output with the labels
              a function of the user's, (outputs, targets, labels) -> scalar
    soft      T^2 KL(softmax(t / T) || softmax(y / T))                    Hinton et al., arXiv 1503.02531
    features  mean over pairs of `features.feature_loss`                  Romero et al., arXiv 1412.6550

`soft` is there where a temperature is given, `features` where tensors are named. Outputs that are indices or booleans
teach nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolchain.compress.recovery.choices import Task
from toolchain.compress.recovery.features import feature_loss
from toolchain.errors import OptionError
from toolchain.graph import Graph

TaskLoss: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | None], Tensor]
"""A user's loss: (the student's outputs, the teacher's or none, labels (N,) or None) -> a scalar."""


@dataclass(frozen=True)
class Targets:
    """What a batch is taught: the teacher's outputs, its features by the student's names, and the labels (N,)."""

    outputs: tuple[Tensor, ...] = ()
    features: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Teacher and weights of the module's formula.

    `teacher` is a graph, or a module that takes and gives what the student does; None is enough for labels alone.
    `features` maps tensors of the student to tensors of a teacher that is a graph. `alpha` weighs distillation,
    `feature_weight` is phi, `weight_pull` lambda.
    """

    task: Task | TaskLoss = Task.OUTPUTS
    teacher: Graph | nn.Module | None = None
    temperature: float | None = None
    alpha: float = 1.0
    features: Mapping[str, str] = field(default_factory=dict)
    feature_weight: float = 1.0
    weight_pull: float = 0.0

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with a teacher."""
        return self.task == Task.OUTPUTS or self.temperature is not None or bool(self.features)

    def loss(self, outputs: Sequence[Tensor], features: Mapping[str, Tensor], targets: Targets) -> Tensor:
        """Task and distillation of one batch, a scalar. Raises OptionError where labels are wanted and there are
        none."""
        loss = self._task(outputs, targets)
        if self.temperature is not None:
            loss = loss + self.alpha * _soft_classes(outputs, targets.outputs, self.temperature)
        if self.features:
            losses = [feature_loss(features[name], targets.features[name]) for name in self.features]
            loss = loss + self.alpha * self.feature_weight * torch.stack(losses).mean()
        return loss

    def _task(self, outputs: Sequence[Tensor], targets: Targets) -> Tensor:
        if self.task == Task.OUTPUTS:
            return _relative_errors(outputs, targets.outputs)
        if self.task == Task.CROSS_ENTROPY:
            return _cross_entropy(outputs, targets.labels)
        assert callable(self.task)
        loss = self.task(outputs, targets.outputs, targets.labels)
        if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
            raise OptionError(
                f"the loss returned {_describe(loss)}",
                where=getattr(self.task, "__qualname__", "loss"),
                hint="return a scalar tensor made of the outputs, so that it has a gradient",
            )
        return loss


def _relative_errors(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    losses = [
        (output - target).square().sum() / target.square().sum().clamp_min(1e-12)
        for output, target in _reals(outputs, targets)
    ]
    return torch.stack(losses).sum() if losses else torch.zeros(())


def _soft_classes(outputs: Sequence[Tensor], targets: Sequence[Tensor], temperature: float) -> Tensor:
    losses = [
        F.kl_div(
            F.log_softmax(output / temperature, -1),
            F.log_softmax(target / temperature, -1),
            reduction="batchmean",
            log_target=True,
        )
        for output, target in _reals(outputs, targets)
    ]
    return temperature**2 * torch.stack(losses).sum() if losses else torch.zeros(())


def _cross_entropy(outputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
    if labels is None:
        raise OptionError(
            "loss = cross_entropy needs labels, and the samples have none",
            hint="give labelled samples, or train towards the reference's outputs: loss = outputs",
        )
    if outputs[0].ndim != 2 or not outputs[0].is_floating_point():
        raise OptionError(
            f"loss = cross_entropy needs class scores (N, C), and the first output has shape {tuple(outputs[0].shape)}",
            hint="name a loss of your own: loss = package.module:function",
        )
    return F.cross_entropy(outputs[0], labels)


def _reals(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    return ((output, target) for output, target in zip(outputs, targets, strict=True) if target.is_floating_point())


def _describe(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
