"""Settings of all tests: the repository importable, one torch thread, hypothesis the same on every run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# networks and cases are shared between folders as `tests.zoo`, `tests.graph`
sys.path.insert(0, str(Path(__file__).parent.parent))

# deployments, also in processes of their own, count no instructions where the emulator is set up: its own tests do
os.environ["TOOLCHAIN_COUNT"] = "0"

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


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
