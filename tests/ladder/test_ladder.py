"""The ladder on real networks: what it reaches, that files and simulation agree, that it is the same every time."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.ladder.goal import Goal
from toolchain.quantization import NumberFormat
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.quantize import Method, Quantize
from toolchain.stages.trace import Trace


class Residual(nn.Module):
    """A stream that grows with depth, and a head that needs what it was at first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(3))
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        y = x
        for size, layer in enumerate(self.layers):
            y = y + (4.0**size) * torch.relu(layer(y))
        return self.head(torch.layer_norm(y, (24,)))


class Boxes(nn.Module):
    """Coordinates in pixels beside scores below one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(12, 16)
        self.boxes, self.scores = nn.Linear(16, 4), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.body(x))
        return torch.cat([self.boxes(x) * 300.0, torch.sigmoid(self.scores(x))], -1)


@cache
def calibrated(kind: type[nn.Module], size: int):
    torch.manual_seed(0)
    values = np.random.default_rng(0).standard_normal((80, size)).astype(np.float32)
    samples = samples_from(values, calibration_count=60, judging_count=20, batch_size=16)
    traced = Trace(example_inputs=samples.first_inputs())(kind().eval())
    return Calibrate(samples=samples, histograms=True)(traced), samples


def ladder(kind: type[nn.Module], size: int, **options):
    model, samples = calibrated(kind, size)
    made = Quantize(method=Method.AUTO, samples=samples, seconds=1.0, **options)(model)
    return made, made.history[-1].facts


def test_it_goes_as_far_as_the_goal_needs():
    _, easy = ladder(Residual, 24, goal=Goal(sqnr_db=10.0))
    made, hard = ladder(Residual, 24, goal=Goal(sqnr_db=36.0))
    assert len(easy["ladder"]) < len(hard["ladder"])
    assert easy["meets_goal"] and hard["meets_goal"]
    assert made.float_nodes


def test_biases_are_corrected_even_where_the_goal_is_met_before():
    _, facts = ladder(Residual, 24, goal=Goal())
    assert [rung["rung"] for rung in facts["ladder"]] == ["min-max", "bias correction"]


def test_files_and_simulation_say_the_same():
    for kind, size in ((Residual, 24), (Boxes, 12)):
        _, facts = ladder(kind, size, goal=Goal(sqnr_db=40.0))
        for rung in facts["ladder"]:
            judged = rung["judged"]
            if judged is None or judged["simulated_db"] is None:  # runtimes round activations as they come
                continue
            for db in judged["same_samples_db"].values():
                assert abs(db - judged["simulated_db"]) <= 0.3, rung["rung"]


def test_the_same_twice():
    first, second = (ladder(Residual, 24, goal=Goal(sqnr_db=36.0))[0] for _ in range(2))
    assert first.digest == second.digest
    assert first.history[-1].seconds.keys() == second.history[-1].seconds.keys()


def test_scores_beside_coordinates_get_a_scale_of_their_own():
    made, facts = ladder(Boxes, 12, goal=Goal(sqnr_db=25.0))
    first, *_, last = (rung for rung in facts["ladder"] if rung["kept"])
    assert first["worst"]["sqnr_db"] > 30 > 20 > first["worst"]["balanced_db"]
    assert last["rung"] == "output joins" and facts["meets_goal"]
    assert last["worst"]["balanced_db"] > 25
    assert set(made.float_nodes) == set(last["notes"]["joins"])


def test_a_device_without_float_gets_none():
    made, _ = ladder(Residual, 24, goal=Goal(sqnr_db=60.0), alternatives=(NumberFormat.W8A8_PER_TENSOR,))
    plain, _ = ladder(Residual, 24, goal=Goal())
    assert made.float_nodes == plain.float_nodes


def test_a_metric_of_the_users_decides():
    def metric(outputs, labels):
        return -float(np.abs(outputs[0]).mean())

    _, facts = ladder(Boxes, 12, goal=Goal(score_drop=1e9), metric=metric)
    assert facts["meets_goal"] and facts["ladder"][0]["worst"]["score_drop"] is not None


def test_options_are_checked():
    with pytest.raises(Exception, match="samples are needed"):
        Quantize(method="auto")
    with pytest.raises(Exception, match="weight_bits"):
        Quantize(weight_bits=9)
