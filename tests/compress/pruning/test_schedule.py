from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
import torch
from compress.channel_networks import FlattenHead, Residual, conv, images, traced
from torch import nn

from toolchain.compress.pruning.choices import Importance, Measure, PruneSchedule, Scope
from toolchain.compress.pruning.magnitude import plan_weights
from toolchain.compress.pruning.patterns import parse_pattern
from toolchain.compress.pruning.schedule import (
    RAMP,
    Trainer,
    cubic,
    prune_channels,
    prune_layers,
    prune_weights,
    round_ratio,
    tightens,
)
from toolchain.compress.pruning.structured import Request, plan_pruning
from toolchain.compress.recovery.batches import EpochBatches
from toolchain.compress.recovery.objective import Objective
from toolchain.compress.recovery.training import Training
from toolchain.engine.module import GraphModule
from toolchain.engine.run import predict
from toolchain.graph import Graph, Structure
from toolchain.graph.cost import total_macs
from toolchain.samples import Batch, samples_from

SAMPLES = samples_from(images(40), batch_size=8)


def network() -> Graph:
    torch.manual_seed(0)
    return traced(nn.Sequential(conv(3, 8), Residual(8, 8), Residual(8, 8), FlattenHead(8)))


def trainer(graph: Graph, epochs: int = 2) -> Trainer:
    training = Training(epochs=epochs, learning_rate=1e-3)
    return Trainer(objective=Objective(teacher=graph), training=training, batches=EpochBatches(samples=SAMPLES))


def samples() -> Iterable[Batch]:
    return SAMPLES.calibration()


def test_the_cubic_schedule_starts_fast_and_is_done_before_the_end() -> None:
    shares = [cubic(step, 400, 0.8) for step in range(401)]
    assert shares[0] == 0 and shares[int(RAMP * 400)] == shares[-1] == 0.8
    steps = np.diff(shares[: int(RAMP * 400) + 1])
    assert (np.diff(steps) <= 1e-12).all()
    assert shares[int(RAMP * 200)] == pytest.approx(0.8 * (1 - 0.5**3))
    assert tightens(0, 400) and tightens(400, 400) and sum(tightens(s, 400) for s in range(400)) < 100


def test_rounds_take_the_same_share_of_what_is_left() -> None:
    left = [1 - round_ratio(0.75, number, 4) for number in range(5)]
    np.testing.assert_allclose(np.array(left[1:]) / np.array(left[:-1]), 0.25**0.25)
    assert round_ratio(0.75, 4, 4) == 0.75


@pytest.mark.parametrize("text", [None, "1x4"])
@pytest.mark.parametrize("schedule", [PruneSchedule.ITERATIVE, PruneSchedule.GRADUAL])
def test_weights_end_at_the_share_and_stay_zero(schedule: PruneSchedule, text: str | None) -> None:
    graph = network()
    pattern = parse_pattern(text) if text else None
    plan = plan_weights(graph, 0.7, **({"pattern": pattern} if pattern else {}))
    pruned = prune_weights(
        graph, Structure(), plan, samples, schedule=schedule, rounds=3, trainer=trainer(graph)
    )  # fmt: skip
    sizes = {name: mask.size for name, mask in plan.masks.items()}
    for name, mask in pruned.structure.masks.items():
        wanted = np.count_nonzero(plan.masks[name])
        # blocks at an end are smaller, so that the same number of blocks may be a few weights more or fewer
        assert abs(np.count_nonzero(mask) - wanted) <= (0 if text is None else 0.02 * sizes[name] + 16)
    assert pruned.structure.violations(pruned.graph.constants) == []
    assert not np.array_equal(pruned.graph.constants["3.classes.bias"], graph.constants["3.classes.bias"])
    assert len(pruned.curves) == (3 if schedule is PruneSchedule.ITERATIVE else 1)


@pytest.mark.parametrize("importance", [Importance.PATH, Importance.TAYLOR, Importance.CONTRIBUTION])
@pytest.mark.parametrize("schedule", [PruneSchedule.ITERATIVE, PruneSchedule.GRADUAL])
def test_channels_end_at_the_same_counts(schedule: PruneSchedule, importance: Importance) -> None:
    graph = network()
    request = Request(ratio=0.5, importance=importance)
    pruned = prune_channels(
        graph, Structure(), request, samples, schedule=schedule, rounds=2, trainer=trainer(graph)
    )  # fmt: skip
    at_once = plan_pruning(graph, ratio=0.5)
    assert total_macs(pruned.graph) == at_once.macs[1]
    assert pruned.structure.masks == {}
    assert predict(pruned.graph, [(images(),)])[0].shape == (4, 5)


@pytest.mark.parametrize("scope", [Scope.LOCAL, Scope.GLOBAL])
def test_rounds_come_down_to_the_budget_of_the_whole(scope: Scope) -> None:
    graph = network()
    request = Request(ratio=0.6, of=Measure.MACS, scope=scope)
    schedule = PruneSchedule.ITERATIVE
    pruned = prune_channels(
        graph, Structure(), request, samples, schedule=schedule, rounds=3, trainer=trainer(graph, 1)
    )
    assert 0.2 * total_macs(graph) < total_macs(pruned.graph) <= 0.4 * total_macs(graph)
    macs = [plan.macs for plan in pruned.plans]
    assert all(before[1] == after[0] for before, after in pairwise(macs))


def test_channels_cut_at_the_end_of_a_gradual_schedule_were_silent() -> None:
    """The masked module and the smaller graph compute the same."""
    graph = network()
    seen: dict[str, np.ndarray] = {}

    class Watching(Trainer):
        def __call__(self, graph, structure, watch=None, *, number=1):  # type: ignore[no-untyped-def]
            trained, left, curve = super().__call__(graph, structure, watch, number=number)
            seen["masked"] = predict(trained, [(images(),)])[0]
            return trained, left, curve

    given = trainer(graph)
    watching = Watching(objective=given.objective, training=given.training, batches=given.batches)
    request = Request(ratio=0.5)
    pruned = prune_channels(
        graph, Structure(), request, samples, schedule=PruneSchedule.GRADUAL, trainer=watching
    )  # fmt: skip
    np.testing.assert_allclose(predict(pruned.graph, [(images(),)])[0], seen["masked"], rtol=1e-4, atol=1e-5)


def test_masks_from_before_survive_a_gradual_schedule() -> None:
    graph = network()
    plan = plan_weights(graph, 0.5)
    masked = prune_weights(graph, Structure(), plan, samples)
    pruned = prune_channels(
        masked.graph, masked.structure, Request(ratio=0.5), samples,
        schedule=PruneSchedule.GRADUAL, trainer=trainer(graph),
    )  # fmt: skip
    assert pruned.structure.masks.keys() == plan.masks.keys()
    assert pruned.structure.violations(pruned.graph.constants) == []
    weights = GraphModule(pruned.graph, structure=pruned.structure).masks
    assert all(weights[n].shape == pruned.graph.constants[n].shape for n in weights)


def test_layers_go_in_rounds() -> None:
    graph = network()
    pruned = prune_layers(
        graph, Structure(), samples, ratio=0.5, of=Measure.COUNT, rounds=2, trainer=trainer(graph, 1)
    )  # fmt: skip
    assert len(pruned.plans) == len(pruned.curves) == 2
    assert pruned.plans[1].layers[1] <= 0.5 * pruned.plans[0].layers[0]


def test_the_same_twice() -> None:
    graph = network()
    first, again = (
        prune_channels(
            graph, Structure(), Request(ratio=0.5), samples, schedule=PruneSchedule.GRADUAL, trainer=trainer(graph)
        )
        for _ in range(2)
    )
    assert all(np.array_equal(a, again.graph.constants[n]) for n, a in first.graph.constants.items())
