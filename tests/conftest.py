"""Settings of all tests: the repository importable, one torch thread, hypothesis the same on every run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# networks and cases are shared between folders as `tests.zoo`, `tests.graph`
sys.path.insert(0, str(Path(__file__).parent.parent))

settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two workers share two cores; and sums come out the same on every machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def nothing_counted():
    """Deployments in this process count no instructions where the emulator is set up: that is seconds a file, and its
    own tests ask it."""
    from toolchain.backends import BACKENDS

    real = BACKENDS["emulator"]
    BACKENDS["emulator"] = replace(real, missing=lambda: "tests count no instructions")
    yield
    BACKENDS["emulator"] = real


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
