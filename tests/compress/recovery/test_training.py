"""The loop: schedules, batches, validation, masks on the way, batch norms, and what makes it end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.compress.recovery.batch_norm import reestimate
from toolchain.compress.recovery.batches import EpochBatches, runnable_samples
from toolchain.compress.recovery.choices import BatchNorm, Optimizer, Schedule, Task
from toolchain.compress.recovery.objective import Objective
from toolchain.compress.recovery.training import Training, drift, train
from toolchain.compress.recovery.validation import Validation
from toolchain.engine.module import GraphModule
from toolchain.engine.tracing.tracer import trace
from toolchain.errors import OptionError
from toolchain.graph import Graph, parse_graph
from toolchain.samples import samples_from

X = np.random.default_rng(0).standard_normal((48, 3, 6, 6)).astype(np.float32)
Y = (X.mean((1, 2, 3)) > 0).astype(np.int64)


def graph_of(seed: int = 0) -> Graph:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    return trace(net.eval(), (X[:1],))


def batches(count: int = 40, size: int = 8) -> EpochBatches:
    return EpochBatches(samples=samples_from((X, Y), calibration_count=count, judging_count=8, batch_size=size))


def run(module: GraphModule, objective: Objective | None = None, *, epochs: int = 3, given=None, **options):
    given, training = (
        given or batches(),
        Training(epochs=epochs, **{"learning_rate": 3e-3, **options.pop("training", {})}),
    )
    objective = objective or Objective(teacher=graph_of(1))
    return train(module, objective, given, training, steps_per_epoch=given.steps_per_epoch, **options)


@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize("schedule", Schedule)
def test_the_loss_falls(optimizer, schedule):
    options = {"optimizer": optimizer, "schedule": schedule, "learning_rate": 3e-3}
    curve = run(GraphModule(graph_of()), epochs=8, training=options)
    assert len(curve.losses) == 8
    assert curve.losses[-1] < 0.8 * curve.losses[0]


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_threads():
    made = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        run(module := GraphModule(graph_of()))
        made.append(module.trained_constants())
    torch.set_num_threads(before)
    for name, array in made[0].items():
        np.testing.assert_array_equal(array, made[1][name])


def test_rates_rise_in_the_warm_up_and_then_fall_as_scheduled():
    cosine = Training(epochs=1, learning_rate=1.0, warmup=0.2)
    rates = [cosine.rate(step, 10) for step in range(11)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    linear = Training(epochs=1, learning_rate=1.0, schedule=Schedule.LINEAR)
    assert [linear.rate(step, 4) for step in range(5)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert {Training(epochs=1, learning_rate=2.0, schedule="constant").rate(s, 4) for s in range(5)} == {2.0}


def test_labels_teach_without_a_teacher():
    validation = Validation(batches().in_order, by_labels=True)
    curve = run(GraphModule(graph_of()), Objective(task=Task.CROSS_ENTROPY), epochs=8, validation=validation)
    assert curve.points[0].sqnr_db is None
    assert curve.points[curve.kept].accuracy > max(0.9, curve.points[0].accuracy)
    assert curve.points[curve.kept].rank == max(point.rank for point in curve.points)


def test_the_weights_of_the_best_epoch_are_kept_the_untrained_among_them():
    module = GraphModule(graph_of())
    before = module.trained_constants()
    validation = Validation(batches().in_order)
    curve = run(module, Objective(teacher=graph_of()), training={"learning_rate": 0.5}, validation=validation)
    assert curve.kept == 0
    for name, array in module.trained_constants().items():
        np.testing.assert_array_equal(array, before[name])


def test_training_ends_where_the_goal_is_met_and_where_patience_ends():
    seen = []

    def is_met(point):
        seen.append(point.epoch)
        return point.epoch == 2

    curve = run(GraphModule(graph_of()), epochs=6, validation=Validation(batches().in_order, is_met))
    assert len(curve.losses) == 2
    assert curve.steps == 10
    hopeless = {"learning_rate": 0.5, "patience": 2}
    curve = run(
        GraphModule(graph_of()),
        Objective(teacher=graph_of()),
        epochs=6,
        training=hopeless,
        validation=Validation(batches().in_order),
    )
    assert len(curve.losses) == 2


def test_a_users_metric_decides_which_epoch_is_best():
    scores = iter([0.5, 0.9, 0.1, 0.2])
    validation = Validation(batches().in_order, metric=lambda outputs, labels: next(scores))
    assert run(GraphModule(graph_of()), validation=validation).kept == 1


def test_masks_are_tightened_before_steps_and_hold():
    module = GraphModule(graph_of())
    order = np.argsort(np.abs(module.trained_constants()["4.weight"]).reshape(-1))
    calls = []

    def on_step(step, steps):
        calls.append((step, steps))
        mask = np.ones(256, bool)
        mask[order[: 256 * (step + 1) // (steps + 1)]] = False
        module.set_masks({"4.weight": mask.reshape(2, 128)})

    run(module, on_step=on_step)
    assert calls == [(step, 15) for step in range(15)]
    zeros = module.trained_constants()["4.weight"].reshape(-1)[order] == 0
    assert zeros[: 256 * 15 // 16].all()
    assert not zeros[256 * 15 // 16 :].any()


def test_drift_is_relative_and_leaves_out_what_started_at_zero():
    module = GraphModule(graph_of().with_constants({"0.bias": np.zeros(8, np.float32)}))
    started = {name: p.detach().clone() for name, p in module.named_parameters()}
    assert drift(module, started) == 0
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1).add_(0.0)
        module.get_parameter("0.bias").fill_(5.0)
    # five of six parameters, each a tenth of its size away; batch norm's bias started at zero as well
    assert float(drift(module, started)) == pytest.approx(0.01, rel=1e-4)


def test_a_loss_that_is_not_finite_is_told():
    with pytest.raises(OptionError, match="the loss is nan at step 1"):
        run(
            GraphModule(graph_of()),
            Objective(task=lambda outputs, *_: outputs[0].sum() * float("nan"), teacher=graph_of()),
        )


def test_cuda_is_never_required():
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="device is cuda"):
            run(GraphModule(graph_of()), training={"device": "cuda"})


# ---- batch norms -------------------------------------------------------------------------------------------


def test_statistics_estimated_anew_are_those_of_all_samples():
    module = GraphModule(graph_of())
    given = batches(40, 20)
    reestimate(module, given(0), torch.device("cpu"))
    x = torch.from_numpy(given._whole().inputs[0])
    made = torch.conv2d(x, module.get_parameter("0.weight"), module.get_parameter("0.bias"))
    torch.testing.assert_close(module.get_buffer("1.running_mean"), made.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    # torch keeps the unbiased variance of each batch, here of 20 samples at 4 x 4 places
    torch.testing.assert_close(module.get_buffer("1.running_var"), made.var((0, 2, 3)), rtol=1 / 319, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "moves"), [(BatchNorm.FROZEN, False), (BatchNorm.REESTIMATED, True), (BatchNorm.BATCH, True)]
)
def test_batch_norms_follow_as_they_are_told(kind, moves):
    module = GraphModule(graph_of())
    before = module.get_buffer("1.running_mean").clone()
    run(module, epochs=1, training={"batch_norm": kind})
    assert torch.equal(before, module.get_buffer("1.running_mean")) != moves
    with torch.no_grad():  # and are frozen again
        kept = module.get_buffer("1.running_mean").clone()
        module(torch.from_numpy(X))
    assert torch.equal(kept, module.get_buffer("1.running_mean"))


# ---- batches -----------------------------------------------------------------------------------------------


def test_every_epoch_holds_every_sample_once_in_another_order():
    given = batches(40, 16)
    orders = [np.concatenate([b.numbers for b in given(epoch)]) for epoch in (0, 1, 0)]
    assert [len(b) for b in given(0)] == [16, 16, 8]
    assert given.steps_per_epoch == 3
    assert sorted(orders[0]) == list(range(40))
    assert (orders[0] != orders[1]).any()
    np.testing.assert_array_equal(orders[0], orders[2])
    whole = next(given.samples.with_batch_size(40).calibration())
    for batch in given(1):
        np.testing.assert_array_equal(batch.inputs[0], whole.inputs[0][batch.numbers])
        np.testing.assert_array_equal(batch.labels, whole.labels[batch.numbers])


def test_samples_too_large_for_memory_are_streamed_alike(monkeypatch):
    given = EpochBatches(samples=batches().samples, chosen=np.arange(3, 33))
    held = [(b.inputs[0], b.labels, b.numbers) for b in given(2)]
    monkeypatch.setattr("toolchain.compress.recovery.batches._HELD_BYTES", 0)
    streamed = EpochBatches(samples=batches().samples, chosen=np.arange(3, 33))
    for one, batch in zip(held, streamed(2), strict=True):
        for ours, theirs in zip(one, (batch.inputs[0], batch.labels, batch.numbers), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_graph_that_mixes_samples_gets_the_rows_it_was_traced_with():
    graph = parse_graph("input x: float32[4,3]\ny = softmax(x) axis=0\noutput y")
    samples = samples_from(np.ones((16, 3), np.float32), calibration_count=8, judging_count=8, batch_size=32)
    assert runnable_samples(samples, graph).batch_size == 4
