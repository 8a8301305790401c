"""`CALIBRATION=synthetic`, as sample sets and as whole deployments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import deploy
from toolchain.errors import OptionError
from toolchain.samples import samples_from
from toolchain.stages.synthetic import read_calibration, synthetic_samples
from toolchain.stages.trace import Trace


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, (False, None)),
        ("photos", (False, "photos")),
        ("./synthetic", (False, "./synthetic")),
        ("synthetic", (True, None)),
        ("synthetic+photos", (True, "photos")),
        ("synthetic+a+b.npz", (True, "a+b.npz")),
    ],
)
def test_what_calibration_may_say(given: str | None, expected: tuple[bool, str | None]) -> None:
    assert read_calibration(given) == expected


def test_a_plus_needs_a_name() -> None:
    with pytest.raises(OptionError, match="names no samples"):
        read_calibration("synthetic+")


def test_parts_share_no_sample_and_real_ones_judge_where_they_are_given() -> None:
    inputs = (np.zeros((1, 1, 8, 8), np.float32),)
    graph = Trace(example_inputs=inputs)(small()).graph
    samples, made = synthetic_samples(graph, inputs, calibration_count=6, judging=3)
    assert (samples.calibration_count, samples.judging_count, len(made.inputs[0])) == (6, 3, 9)
    parts = [np.concatenate([b.inputs[0] for b in part()]) for part in (samples.calibration, samples.judging)]
    assert not {x.tobytes() for x in parts[0]} & {x.tobytes() for x in parts[1]}
    real = samples_from(np.ones((10, 1, 8, 8), np.float32))
    judged, made = synthetic_samples(graph, inputs, calibration_count=6, judging=real)
    assert len(made.inputs[0]) == 6
    assert judged.for_judging == real.for_judging


def test_named_example_inputs_are_told_apart_in_any_order() -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a.sum(1, keepdim=True) + b.sum((1, 2))[:, None]

    inputs = {"b": np.zeros((1, 2, 3), np.float32), "a": np.zeros((1, 4), np.float32)}
    graph = Trace(example_inputs=inputs)(Two()).graph
    samples, _ = synthetic_samples(graph, inputs, calibration_count=2, judging=1)
    shapes = {name: array.shape for name, array in zip(samples.input_names, samples.first_inputs(), strict=True)}
    assert shapes == {"a": (1, 4), "b": (1, 2, 3)}


def test_a_deployment_says_what_it_was_calibrated_and_judged_on(tmp_path: Path) -> None:
    module = (small(), torch.zeros(1, 1, 8, 8))
    done = deploy(module, target="ethos-u55", calibration="synthetic", out=tmp_path, store=None)
    notes = json.loads((tmp_path / "report.json").read_text())["notes"]
    assert any("calibrated on" in note and "1 batch norms" in note for note in notes)
    assert any("judged on synthetic inputs" in note for note in notes)
    assert done.facts["score_name"] is None


def test_against_real_samples_it_says_what_was_lost(tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", x=np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32))
    calibration = f"synthetic+{tmp_path / 'real.npz'}"
    done = deploy(small(), target="ethos-u55", calibration=calibration, out=tmp_path / "out", store=None)
    (lost,) = (note for note in done.facts["notes"] if "as calibrated on synthetic inputs" in note)
    assert lost.startswith("on 8 real samples") and lost.count(" dB") == 2


def test_no_example_inputs_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="brings none"):
        deploy(small(), calibration="synthetic", out=tmp_path)
