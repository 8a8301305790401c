"""Distillation from the float reference, without labels (Hinton et al., arXiv 1503.02531), with a regularised loss.

For outputs y of the student and t of the teacher, and parameters w that started at w0,

    loss = sum_k |y_k - t_k|^2 / |t_k|^2
           + alpha T^2 KL(softmax(t / T) || softmax(y / T))
           + lambda mean((w - w0)^2) / mean(w0^2)

The first term is the inverse signal-to-noise ratio of the outputs, whatever they mean; the second weighs classes and
is used where `temperature` is given; the third keeps a student that sees few samples near what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, log10, pi
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.engine.module import GraphModule
from toolchain.engine.run import as_tensors, run, to_tensors
from toolchain.engine.threads import one_thread
from toolchain.graph import Graph

Batches: TypeAlias = Callable[[], Iterable[Sequence[np.ndarray]]]


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a student is trained. `alpha` weighs the soft-class term (none without `temperature`), `weight_pull` the
    regulariser; the learning rate falls along half a cosine."""

    epochs: int
    learning_rate: float
    temperature: float | None = None
    alpha: float = 1.0
    weight_pull: float = 1e-2


@dataclass(frozen=True)
class Curve:
    """Mean loss of each epoch, and the SQNR in dB of the student's outputs on the samples before and after."""

    losses: tuple[float, ...]
    sqnr_before_db: float
    sqnr_after_db: float


def distill(
    student: GraphModule, teacher: Graph, batches: Batches, recipe: Distillation, *, seed: int, steps: int
) -> Curve:
    """Train `student` in place; `batches()` starts the samples anew and `steps` is how many batches all epochs hold.

    Parameters go back to where they were when training did not raise the outputs' SQNR. Deterministic for a seed.
    """
    started = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        before = sqnr_db(student, teacher, batches())
        losses = _train(student, teacher, batches, recipe, started, steps)
        after = sqnr_db(student, teacher, batches())
    if not after > before:
        student.load_state_dict(started, strict=False)
        after = before
    return Curve(losses, before, after)


def _train(
    student: GraphModule,
    teacher: Graph,
    batches: Batches,
    recipe: Distillation,
    started: dict[str, Tensor],
    steps: int,
) -> tuple[float, ...]:
    optimizer = torch.optim.Adam(student.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 + 0.5 * cos(pi * min(step / max(steps, 1), 1))
    )
    constants = as_tensors(teacher.constants)
    losses = []
    for _ in range(recipe.epochs):
        epoch = []
        for arrays in batches():
            inputs = to_tensors(arrays)
            with torch.no_grad():
                targets = run(teacher, inputs, constants=constants)
            optimizer.zero_grad()
            loss = distillation_loss(_outputs(student, inputs), targets, recipe)
            loss = loss + recipe.weight_pull * _drift(student, started)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            epoch.append(float(loss.detach()))
        losses.append(float(np.mean(epoch)))
    return tuple(losses)


def distillation_loss(outputs: Sequence[Tensor], targets: Sequence[Tensor], recipe: Distillation) -> Tensor:
    """The first two terms of the module's formula; outputs that are indices or booleans teach nothing."""
    loss = torch.zeros(())
    for output, target in _reals(outputs, targets):
        loss = loss + (output - target).square().sum() / target.square().sum().clamp_min(1e-12)
        if recipe.temperature is not None:
            soft = F.kl_div(
                F.log_softmax(output / recipe.temperature, -1),
                F.log_softmax(target / recipe.temperature, -1),
                reduction="batchmean",
                log_target=True,
            )
            loss = loss + recipe.alpha * recipe.temperature**2 * soft
    return loss


def sqnr_db(student: GraphModule, teacher: Graph, batches: Iterable[Sequence[np.ndarray]]) -> float:
    """Signal-to-noise ratio of the student's outputs against the teacher's, over all batches, in dB."""
    signal = noise = 0.0
    constants = as_tensors(teacher.constants)
    with torch.no_grad():
        for arrays in batches:
            inputs = to_tensors(arrays)
            targets = run(teacher, inputs, constants=constants)
            for output, target in _reals(_outputs(student, inputs), targets):
                signal += float(target.double().square().sum())
                noise += float((output - target).double().square().sum())
    return 10 * log10(max(signal, 1e-300) / max(noise, 1e-300))


def _reals(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    return ((output, target) for output, target in zip(outputs, targets, strict=True) if target.is_floating_point())


def _outputs(student: GraphModule, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    outputs = student(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _drift(student: GraphModule, started: dict[str, Tensor]) -> Tensor:
    """How far the parameters are from where they started, relative to their size."""
    moved = torch.zeros(())
    for name, parameter in student.named_parameters():
        moved = moved + (parameter - started[name]).square().mean() / started[name].square().mean().clamp_min(1e-12)
    return moved / max(len(started), 1)
