"""When things go: at once, in rounds with training between them, or little by little while training.

    one_shot     s = s_f
    iterative    round r of R brings down to (1 - s_f)^(r / R) what is left, then trains    Han et al., arXiv 1506.02626
    gradual      s_t = s_f (1 - (1 - t / T)^3)                  Zhu and Gupta, arXiv 1710.01878

t runs over the steps of one training and is done at T, `RAMP` of them, so that the last steps train what is left.
Gradually pruned channels are masked wherever they lie, every `EVERY`th of T, and cut out at the end; what is masked
stays masked. Importances that look at weights see those of the moment, what was measured on samples is that of the
start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from toolchain.compress.pruning.choices import Measure, PruneSchedule
from toolchain.compress.pruning.costs import COSTS, Cost
from toolchain.compress.pruning.layers import LayerPlan, apply_layers, plan_layers
from toolchain.compress.pruning.magnitude import (
    MagnitudePlan,
    apply_masks,
    choose_masks,
    plan_weights,
    weight_evidence,
    weight_scores,
)
from toolchain.compress.pruning.masking import ChannelMasker
from toolchain.compress.pruning.structured import PruningPlan, Request, apply, apply_structure, plan_channels
from toolchain.compress.recovery.batches import EpochBatches
from toolchain.compress.recovery.checkpoint import Checkpoint
from toolchain.compress.recovery.objective import Objective
from toolchain.compress.recovery.training import Curve, Training, train
from toolchain.engine.module import GraphModule
from toolchain.graph import Graph, Structure
from toolchain.progress import SILENT, Progress
from toolchain.samples import Batch

RAMP = 0.75
EVERY = 0.02

Plan: TypeAlias = PruningPlan | MagnitudePlan | LayerPlan
Samples: TypeAlias = Callable[[], Iterable[Batch] | None]
"""The samples that importances measure on, anew at every call; None where there are none."""

Watch: TypeAlias = Callable[[GraphModule, int, int], None]


@dataclass(frozen=True)
class Pruned:
    """What is left, the plans that were carried out in order and the curves of the trainings."""

    graph: Graph
    structure: Structure
    plans: tuple[Plan, ...]
    curves: tuple[Curve, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains a graph, its structure held, as `objective` and `training` say. In `checkpoints` each training keeps what
    it has reached; `belongs_to` is the digest of all that determines it."""

    objective: Objective
    training: Training
    batches: EpochBatches
    progress: Progress = SILENT
    checkpoints: Path | None = None
    belongs_to: str = ""

    def __call__(
        self, graph: Graph, structure: Structure, watch: Watch | None = None, *, number: int = 1
    ) -> tuple[Graph, Structure, Curve]:
        """Training number `number`. `watch(module, step, steps)` is called before each step, and once after the
        last."""
        module = GraphModule(graph, structure=structure)
        steps = self.batches.steps_per_epoch
        curve = train(
            module,
            self.objective,
            self.batches,
            self.training,
            steps_per_epoch=steps,
            checkpoint=self._checkpoint(number),
            on_step=None if watch is None else lambda step, total: watch(module, step, total),
            progress=self.progress,
            description="prune",
        )
        if watch is not None:
            watch(module, curve.steps, curve.steps)
        return graph.with_constants(module.trained_constants()), module.trained_structure(), curve

    def _checkpoint(self, number: int) -> Checkpoint | None:
        if self.checkpoints is None:
            return None
        return Checkpoint(self.checkpoints / f"training-{number}", f"{self.belongs_to} {number}")


def cubic(step: int, steps: int, final: float) -> float:
    """The share that is gone at `step` of `steps`."""
    return final * (1 - (1 - min(step / max(RAMP * steps, 1), 1.0)) ** 3)


def tightens(step: int, steps: int) -> bool:
    """Whether masks are looked at before `step`."""
    return step % max(int(EVERY * RAMP * steps), 1) == 0 or step == steps


def round_ratio(ratio: float, number: int, rounds: int) -> float:
    """The share of all that is gone after round `number` of `rounds`."""
    return ratio if number == rounds else 1 - (1 - ratio) ** (number / rounds)


# ---- channels ----------------------------------------------------------------------------------------------


def prune_channels(
    graph: Graph,
    structure: Structure,
    request: Request,
    samples: Samples,
    *,
    schedule: PruneSchedule = PruneSchedule.ONE_SHOT,
    rounds: int = 1,
    trainer: Trainer | None = None,
) -> Pruned:
    """Channels gone by `schedule`; all but one_shot need a `trainer`."""
    if schedule is PruneSchedule.GRADUAL and trainer is not None:
        return _channels_while_training(graph, structure, request, samples, trainer)
    rounds = rounds if schedule is PruneSchedule.ITERATIVE else 1
    first = plan_channels(graph, request, samples()) if rounds == 1 else None
    plans, curves, present = list[Plan](), list[Curve](), graph
    sizes: dict[str, int] = {}
    for number in range(1, rounds + 1):
        wanted = _round_request(request, graph, present, sizes, round_ratio(request.ratio, number, rounds))
        plan = first or plan_channels(present, wanted, samples())
        sizes = sizes or {group.group.name: group.group.size for group in plan.groups}
        plans.append(plan)
        present, structure = apply(plan, present), apply_structure(plan, structure)
        if trainer is not None:
            present, structure, curve = trainer(present, structure, number=number)
            curves.append(curve)
    return Pruned(present, structure, tuple(plans), tuple(curves))


def _round_request(request: Request, graph: Graph, present: Graph, sizes: dict[str, int], ratio: float) -> Request:
    """What is asked of `present`, so that `ratio` of the whole `graph` is gone then."""
    if request.of is Measure.COUNT:
        return replace(request, ratio=ratio, original=sizes)
    cost = request.cost if request.of is Measure.LATENCY else COSTS[request.of]
    assert cost is not None
    return replace(request, ratio=ratio, original=sizes, budget=(1 - ratio) * cost(graph, graph.types))


def _channels_while_training(
    graph: Graph, structure: Structure, request: Request, samples: Samples, trainer: Trainer
) -> Pruned:
    masker = ChannelMasker(graph, request, samples())

    def watch(module: GraphModule, step: int, steps: int) -> None:
        if tightens(step, steps):
            present = graph.with_constants(module.trained_constants())
            module.set_masks(masker.masks(present, cubic(step, steps, 1.0), module.masks))

    before = structure.masks
    trained, structure, curve = trainer(graph, structure, watch)
    plan = masker.plan(trained, structure.masks)
    # of the masks of channels nothing is left once these are cut; what was masked before stays
    structure = replace(structure, masks={name: structure.masks[name] for name in before})
    return Pruned(apply(plan, trained), apply_structure(plan, structure), (plan,), (curve,))


# ---- single weights ----------------------------------------------------------------------------------------


def prune_weights(
    graph: Graph,
    structure: Structure,
    plan: MagnitudePlan,
    samples: Samples,
    *,
    schedule: PruneSchedule = PruneSchedule.ONE_SHOT,
    rounds: int = 1,
    trainer: Trainer | None = None,
    seed: int = 0,
) -> Pruned:
    """Weights masked as `plan` wants, by `schedule`; it is carried out as it is where that is one_shot."""
    if schedule is PruneSchedule.GRADUAL and trainer is not None:
        return _weights_while_training(graph, structure, plan, samples, trainer, seed)
    rounds = rounds if schedule is PruneSchedule.ITERATIVE else 1
    plans, curves, present = list[Plan](), list[Curve](), graph
    for number in range(1, rounds + 1):
        if rounds > 1:
            sparsity = round_ratio(plan.sparsity, number, rounds)
            plan_now = plan_weights(
                present,
                sparsity,
                structure,
                importance=plan.importance,
                scope=plan.scope,
                pattern=plan.pattern,
                names=tuple(plan.masks),
                batches=samples(),
                seed=seed,
            )
        else:
            plan_now = plan
        plans.append(plan_now)
        present, structure = apply_masks(plan_now, present), structure.with_masks(plan_now.masks)
        if trainer is not None:
            present, structure, curve = trainer(present, structure, number=number)
            curves.append(curve)
    return Pruned(present, structure, tuple(plans), tuple(curves))


def _weights_while_training(
    graph: Graph, structure: Structure, plan: MagnitudePlan, samples: Samples, trainer: Trainer, seed: int
) -> Pruned:
    evidence = weight_evidence(graph, plan.importance, samples(), seed)

    def watch(module: GraphModule, step: int, steps: int) -> None:
        if tightens(step, steps):
            present = graph.with_constants(module.trained_constants())
            scores = weight_scores(present, plan.importance, evidence, tuple(plan.masks))
            share = cubic(step, steps, plan.sparsity)
            module.set_masks(choose_masks(scores, share, module.masks, scope=plan.scope, pattern=plan.pattern))

    trained, structure, curve = trainer(graph, structure, watch)
    done = replace(plan, masks={name: structure.masks[name] for name in plan.masks})
    return Pruned(apply_masks(done, trained), structure, (done,), (curve,))


# ---- layers ------------------------------------------------------------------------------------------------


def prune_layers(
    graph: Graph,
    structure: Structure,
    samples: Samples,
    *,
    ratio: float,
    of: Measure,
    cost: Cost | None = None,
    rounds: int = 1,
    trainer: Trainer | None = None,
) -> Pruned:
    """Layers gone in `rounds`, with training after each where there is a `trainer`."""
    first = plan_layers(graph, ratio=round_ratio(ratio, 1, rounds), of=of, batches=samples(), cost=cost)
    plans, curves, present = list[Plan](), list[Curve](), graph
    for number in range(1, rounds + 1):
        share = round_ratio(ratio, number, rounds)
        # the budget is that of the whole graph; what went before is counted
        plan = (
            first
            if number == 1
            else plan_layers(present, ratio=share, of=of, batches=samples(), cost=cost, whole=graph)
        )
        plans.append(plan)
        present, structure = apply_layers(plan, structure)
        if trainer is not None:
            present, structure, curve = trainer(present, structure, number=number)
            curves.append(curve)
    return Pruned(present, structure, tuple(plans), tuple(curves))
