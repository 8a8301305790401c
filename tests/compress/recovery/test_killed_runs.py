"""A recovery that is killed and run again ends with the weights of one that was not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.compress.recovery.checkpoint import Checkpoint
from toolchain.compress.recovery.training import _Loop
from toolchain.samples import SampleSet, samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.quantize import Quantize
from toolchain.stages.recover import Recover
from toolchain.stages.states import QuantizedModel, load
from toolchain.stages.trace import Trace

SCRIPT = Path(__file__).with_name("kill_and_resume.py")
X = np.random.default_rng(0).standard_normal((32, 3, 6, 6)).astype(np.float32)


def samples() -> SampleSet:
    return samples_from(X, calibration_count=24, judging_count=8, batch_size=8)


def quantized() -> QuantizedModel:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)).eval()
    return Quantize()(Calibrate(samples=samples())(Trace(example_inputs=(X[:1],))(module)))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_interrupted_and_taken_up_again_it_gives_the_same_model(steps, tmp_path, monkeypatch):
    monkeypatch.setattr("toolchain.compress.recovery.checkpoint.EVERY_S", 0.0)
    model = quantized()
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model")
    stage = Recover(samples=samples(), epochs=2, learning_rate=1e-3, learned_steps=True, validation=0)
    whole = stage(model)
    learn = _Loop.learn

    def interrupted(loop, batch):
        if loop.step == steps:
            raise KeyboardInterrupt
        learn(loop, batch)

    monkeypatch.setattr(_Loop, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage(model, checkpoints=tmp_path / "kept")
    made = []
    monkeypatch.setattr(_Loop, "learn", lambda loop, batch: (made.append(loop.step), learn(loop, batch)))
    resumed = stage(load(tmp_path / "model"), checkpoints=tmp_path / "kept")
    assert made == list(range(steps, 6))
    assert resumed.digest == whole.digest


@pytest.mark.slow
def test_killed_at_three_moments_and_resumed_it_gives_the_same_bytes(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=True)
    whole, *resumed, left = done.stdout.splitlines()
    digest, steps, _ = whole.split()
    assert int(steps) == 15
    assert len(resumed) == 3
    for line, made in zip(resumed, (1, 9, 6), strict=True):
        again, count, first = line.split()
        assert again == digest
        # the step that was being made is lost, and none before it
        assert int(first) == made
        assert int(count) == 15 - made
    assert left == "[]"


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_passed_over(tmp_path):
    kept = Checkpoint(tmp_path / "here", "this")
    assert kept.load() is None
    weights = torch.arange(3.0)
    kept.save(({"a": weights, "b": weights}, {"step": 3}))
    tensors, plain = kept.load()
    assert plain == {"step": 3}
    assert torch.equal(tensors["b"], weights)
    assert Checkpoint(tmp_path / "here", "that").load() is None
    (file,) = (tmp_path / "here").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert kept.load() is None
