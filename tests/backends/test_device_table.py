"""What `toolchain devices` and `toolchain targets` print: every target, nothing cut off, brackets for what misses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from toolchain.backends import device_table
from toolchain.backends.device_table import print_devices, print_targets, target_row
from toolchain.devices.ways import WAYS
from toolchain.knowledge import shipped_names
from toolchain.targets import load_target


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", shipped_names("targets"))
def test_a_row_says_what_the_target_is(name):
    target, profile = load_target(name)
    row = target_row(target, profile)
    assert (row.device, row.kind, row.formats, row.ways) == (target.device, profile.kind, target.formats, target.ways)
    assert row.numbers and (row.ram_kib, row.flash_kib) == (profile.memory.ram_kib, profile.memory.flash_kib)


def test_every_target_is_printed_and_nothing_is_cut_off(capsys):
    print_devices(as_json=False)
    out = capsys.readouterr().out
    assert "…" not in out and all(name in out for name in (*shipped_names("targets"), *WAYS))
    assert "1 GiB" in out and "640 KiB" in out
    print_targets(as_json=False)
    assert all(name in capsys.readouterr().out for name in ("arm64",))


def test_what_misses_something_is_in_brackets_and_says_what(capsys, monkeypatch):
    line = "adb: apt-get install adb"
    monkeypatch.setattr(device_table, "WAYS", {**WAYS, "adb": replace(WAYS["adb"], missing=lambda: line)})
    print_devices(as_json=False)
    out = capsys.readouterr().out
    assert "(adb)" in out and f"no: {line}" in " ".join(out.split()) and "in brackets" in out
    print_devices(as_json=True)
    plain = json.loads(capsys.readouterr().out)
    assert plain["ways"]["adb"]["missing"] == line
    assert set(plain) == {"targets", "ways", "backends"} and set(plain["targets"]) == set(shipped_names("targets"))


def test_targets_as_json_carry_every_key(capsys):
    print_targets(as_json=True)
    plain = json.loads(capsys.readouterr().out)
    assert plain["targets"]["raspberry-pi-4"]["extends"] == "arm64"
    assert set(plain["devices"]) == set(shipped_names("device_profiles"))
