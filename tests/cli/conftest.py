"""A folder of its own for each command, with a small model of the user's in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from toolchain import cli

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8 * 16, 10)

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        x = torch.max_pool2d(x, 2)
        return self.fc(torch.flatten(x, 1))

def net():
    return Net()

class Branchy(Net):
    def forward(self, x):
        if x.sum() > 0:
            return super().forward(x)
        return super().forward(-x)

class Odd(Net):
    def forward(self, x):
        x = torch.fft.rfft(x).real
        return torch.cumsum(torch.erfinv(x), 1)

class Broken(Net):
    def __init__(self):
        super().__init__()
        self.fc.weight.data[0, 0] = float("nan")

def branchy(): return Branchy()
def odd(): return Odd()
def broken(): return Broken()
def nothing(): return None
def score(outputs, labels): return float(outputs[0].std())
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_models.py").write_text(MODELS)
    random = np.random.default_rng(0)
    np.savez(tmp_path / "samples.npz", x=random.normal(size=(60, 1, 8, 8)).astype(np.float32))
    return tmp_path


@pytest.fixture
def run(workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process, as its entry point would."""

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["toolchain", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        sys.modules.pop("user_models", None)
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capfd.readouterr()
        return Outcome(int(left.value.code or 0), out, err)

    return call


def environment() -> dict[str, str]:
    """Of a process started elsewhere that runs this checkout's toolchain."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


DEPLOY = ("deploy", "--model", "user_models:net", "--calibration", "samples.npz", "--samples", "20", "--judge", "30")


@pytest.fixture
def deploy_options() -> tuple[str, ...]:
    return DEPLOY
