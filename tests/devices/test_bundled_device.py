"""What a bundle says of its device: the way that is taken, and what only the device runs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from toolchain.devices import bundled_device as module
from toolchain.devices.bundled_device import BundledDevice, bundled_device, choose_way, device_provenance, runtimes_of
from toolchain.devices.reading import read_bundle
from toolchain.devices.ways import WAYS, Options, WayKind
from toolchain.devices.ways.here import host_requirements
from toolchain.errors import OptionError
from toolchain.knowledge import shipped_names
from toolchain.targets import load_target


@pytest.fixture
def ready(monkeypatch):
    """Make ways miss something, or nothing."""

    def made(**missing: str) -> None:
        ways: dict[str, WayKind] = {}
        for name, kind in WAYS.items():
            line = missing.get(name)
            ways[name] = replace(kind, missing=lambda line=line: line)
        monkeypatch.setattr(module, "WAYS", ways)

    return made


@pytest.mark.parametrize("name", shipped_names("targets"))
def test_every_target_says_what_leads_to_it_and_the_bundle_carries_it(name):
    target, profile = load_target(name)
    plain = json.loads(json.dumps(device_provenance(target, profile)))
    device = bundled_device(plain)
    assert device.name == target.device and device.ways == target.ways and set(target.ways) <= set(WAYS)
    assert not WAYS[target.ways[0]].to_host, "what is taken without options needs no host"
    assert bool(device.note) == (profile.kind != "cpu") and "\n" not in device.note
    assert ("emulator" in target.ways) <= ("emulator" in plain), "an emulated device has a CPU"


def test_the_first_way_that_is_ready_is_taken(ready):
    board = BundledDevice("board", ("emulator", "here", "ssh"))
    told: list[str] = []
    ready()
    assert choose_way(None, Options(tell=told.append), board).name == "emulator" and told == []
    ready(emulator="qemu: apt-get install qemu-user")
    assert choose_way(None, Options(tell=told.append), board).name == "here"
    assert told == ["not by emulator, which misses qemu: apt-get install qemu-user"]


def test_who_names_a_host_wants_the_way_there(ready):
    ready()
    assert choose_way(None, Options(host="pi@board"), BundledDevice("board", ("emulator", "here", "ssh"))).name == "ssh"
    assert choose_way(None, Options(host="R58M"), BundledDevice("phone", ("emulator", "here", "adb"))).name == "adb"
    assert choose_way(None, Options(host="board"), BundledDevice()).name == "ssh"
    assert choose_way("adb", Options(host="R58M"), BundledDevice()).name == "adb"


def test_who_names_an_interpreter_or_a_cpu_wants_it(ready):
    ready()
    board = BundledDevice("board", ("emulator", "here", "ssh"))
    assert choose_way(None, Options(python="/usr/bin/python3"), board).name == "here"
    assert choose_way(None, Options(cpu="cortex-a53"), BundledDevice()).name == "emulator"
    assert choose_way(None, Options(host="pi@board", python="python3.11"), board).name == "ssh"


def test_a_way_that_there_is_not_is_an_error(ready):
    ready()
    with pytest.raises(OptionError, match="no way 'pigeon'"):
        choose_way("pigeon", Options(), BundledDevice())
    assert choose_way(None, Options(), BundledDevice("new", ("carrier",))).name == "here"


@pytest.mark.parametrize("odd", [{}, {"device": 3, "ways": "ssh", "note": []}, {"ways": [None, 1]}, {"ways": []}])
def test_a_bundle_that_says_nothing_is_judged_here(odd):
    assert bundled_device(odd) == BundledDevice()


def test_the_fresh_venv_gets_the_runtimes_that_the_bundle_expects(made):
    bundle = read_bundle(made)
    assert set(runtimes_of(bundle)) == {"onnxruntime", "ai-edge-litert"}
    names = [line.partition("==")[0] for line in host_requirements(runtimes_of(bundle))]
    assert names == ["numpy", "onnxruntime", "ai-edge-litert"]
    assert "of-nowhere==1.2" in host_requirements({"of-nowhere": "1.2"})
    for runtime, version in (("evil", "1"), ("onnxruntime", "1 --pre")):
        strange = replace(bundle.artifacts[0], runtime=runtime, version=version)
        assert runtimes_of(replace(bundle, artifacts=(strange,))) == {}
