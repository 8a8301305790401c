"""The back end that counts instructions: whom it serves, what it misses, what it says."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.devices.conftest import deployed
from tests.devices.emulator.fake_machine import make_machine
from toolchain.backends.backend import Written
from toolchain.backends.instructions import EMULATOR, LABELS, SWITCH
from toolchain.devices.emulator import find_emulator, set_up
from toolchain.devices.emulator.counting import CLASSES
from toolchain.devices.golden import describe_file
from toolchain.devices.ways.here import cache_folder
from toolchain.errors import DeviceError
from toolchain.profiles import load_profile


def written(name: str = "model.tflite") -> Written:
    given = deployed()
    dtype = describe_file(name, given.files[name])["inputs"][0]["dtype"]
    inputs = np.zeros((1, 8, 8, 2) if name.endswith("tflite") else (1, 2, 8, 8), dtype)
    return Written(name, given.files[name], given.model, ((inputs,),), ((),))


def test_it_serves_both_files_of_devices_with_an_emulated_cpu():
    for name in ("cortex-a53", "cortex-a72", "cortex-a76", "raspberry-pi-4", "raspberry-pi-5"):
        profile = load_profile(name)
        assert EMULATOR.serves(profile, "model.onnx") and EMULATOR.serves(profile, "model.tflite")
        assert not EMULATOR.serves(profile, "model.pt2")
    assert not EMULATOR.serves(load_profile("x86-64"), "model.onnx")
    assert not EMULATOR.serves(load_profile("ethos-u55-128"), "model.tflite")


def test_what_is_missing_is_one_line_with_what_is_done_without(tmp_path, monkeypatch):
    monkeypatch.delenv(SWITCH)
    machine = make_machine(tmp_path, monkeypatch)
    without = "(without it executed instructions are not counted)"
    line = str(EMULATOR.missing())
    assert line == f"the emulator is not set up: make emulator {without}"
    set_up(cache_folder())
    assert EMULATOR.missing() is None
    machine.hides("qemu-aarch64")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    missing = str(EMULATOR.missing())
    assert "\n" not in missing and "apt-get install qemu-user; then make emulator" in missing
    assert without in missing


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    assert EMULATOR.missing() == "executed instructions are not counted: TOOLCHAIN_COUNT=0"


def test_an_emulator_that_went_meanwhile_is_one_error(tmp_path, monkeypatch):
    make_machine(tmp_path, monkeypatch)
    with pytest.raises(DeviceError, match="not set up"):
        EMULATOR.measure(written(), load_profile("cortex-a76"))


def test_every_class_has_a_label():
    assert tuple(LABELS) == CLASSES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.tflite", "model.onnx"])
def test_what_it_measures(name):
    if find_emulator() is None:
        pytest.skip("the emulator is not set up here: make emulator")
    found = EMULATOR.measure(written(name), load_profile("cortex-a76"))
    values = found.by_key
    assert values["instructions"] == sum(values[f"instructions_{kind}"] for kind in CLASSES)
    assert values["instructions_dot"] > 0 and found.backend == "emulator" and found.version.startswith("qemu ")
    assert found.files == {} and "not time" in found.notes[0]
