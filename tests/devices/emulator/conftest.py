"""A machine of the tests' own, and the emulator of this one where it is set up."""

from __future__ import annotations

import pytest

from tests.devices.emulator.fake_machine import FakeMachine, make_machine
from toolchain.devices.emulator import Emulator, find_emulator


@pytest.fixture
def machine(tmp_path, monkeypatch) -> FakeMachine:
    return make_machine(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    found = find_emulator()
    if found is None:
        pytest.skip("the emulator is not set up here: make emulator")
    return found
