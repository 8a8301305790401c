"""The emulated device itself, where it is set up: true CPUs, nothing of this machine, counts that repeat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.devices.conftest import deployed, float_network
from toolchain.devices import run_bundle
from toolchain.devices.bundle import Tolerance, write_bundle
from toolchain.devices.emulator import CPUS
from toolchain.devices.emulator.counting import CLASSES, Counts, count_inference
from toolchain.devices.emulator.cpus import CORES
from toolchain.devices.emulator.emulator import facts_of_cpu
from toolchain.devices.golden import describe_file
from toolchain.devices.reading import read_bundle
from toolchain.devices.session import validate_on
from toolchain.devices.ways import WAYS, Options
from toolchain.devices.ways.emulator import with_recorded_cpu
from toolchain.errors import DeviceError, OptionError
from toolchain.formats.onnx import write_onnx
from toolchain.formats.tflite import write_tflite
from toolchain.profiles.backends import Emulator as EmulatorTable
from toolchain.quantization import Scheme, assign_params
from toolchain.targets import load_target

# bits of AT_HWCAP that Linux names in /proc/cpuinfo: arch/arm64/include/uapi/asm/hwcap.h
HWCAPS = (
    *("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid"),
    *("asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4", "asimddp", "sha512", "sve"),
)
# MIDR_EL1 is read by code of its own: mrs x0, midr_el1; ret
TELL = """
import ctypes, json, mmap, os, sys
libc = ctypes.CDLL(None)
libc.getauxval.restype, libc.getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("000038d5c0035fd6"))
midr = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print(json.dumps({"midr": midr, "hwcap": libc.getauxval(16), "path": sys.path, "cores": os.cpu_count(),
                  "executable": sys.executable, "cpuinfo": open("/proc/cpuinfo").read()}))
"""


def run(emulator, cpu: str, *arguments: str, cwd: Path) -> str:
    command = [str(emulator.python(cpu)), "-s", *arguments]
    done = subprocess.run(command, cwd=cwd, env=emulator.environment(cwd), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("cpu", CPUS)
def test_a_cpus_file_is_true_to_what_qemu_gives(emulator, tmp_path, cpu):
    found = json.loads(run(emulator, cpu, "-c", TELL, cwd=tmp_path))
    assert found["midr"] == CPUS[cpu].midr
    assert {name for bit, name in enumerate(HWCAPS) if found["hwcap"] >> bit & 1} == set(CPUS[cpu].features)
    assert found["hwcap"] < 1 << len(HWCAPS) and found["cpuinfo"] == CPUS[cpu].cpuinfo and found["cores"] == CORES
    # nothing of this machine's Python, and a program that starts itself again
    assert all(not path or path.startswith(str(emulator.folder)) for path in found["path"])
    assert found["executable"] == str(emulator.python(cpu))


def test_the_runner_tells_what_is_emulated(emulator):
    facts = facts_of_cpu(emulator, "cortex-a53")
    assert facts["machine"] == "aarch64" and facts["model"] == "emulated cortex-a53"
    assert facts["cpu"]["CPU part"] == ["0xd03"]


def test_profiles_name_the_cpus_there_are():
    for cpu in CPUS:
        assert EmulatorTable(cpu=cpu).cpu == cpu
    assert set(EmulatorTable.model_fields["cpu"].annotation.__args__) == set(CPUS)


def counted(emulator, cpu: str, name: str, runtime: str) -> Counts:
    content = deployed().files[name]
    artifact = describe_file(name, content)
    inputs = [np.zeros((1, 8, 8, 2) if name.endswith("tflite") else (1, 2, 8, 8), artifact["inputs"][0]["dtype"])]
    return count_inference(emulator, cpu, artifact, {name: content}, inputs, runtime)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "runtime"), [("model.tflite", "ai-edge-litert"), ("model.onnx", "onnxruntime")], ids=["tflite", "onnx"]
)
def test_counts_repeat_and_show_the_kernels(emulator, name, runtime):
    first, second = (counted(emulator, "cortex-a76", name, runtime) for _ in range(2))
    assert abs(first.total / second.total - 1) <= 1e-3
    assert set(first.by_class) == set(CLASSES) and first.total > 8 * 8 * 2 * 6 * 9 / 16
    older = counted(emulator, "cortex-a53", name, runtime)
    # only the newer CPU has dot products; the other multiplies and adds in their place
    assert first.by_class["dot"] > 0 == older.by_class["dot"] and older.by_class["multiply_add"] > 0
    assert older.total > first.total


@pytest.mark.slow
def test_counts_of_more_than_one_thread_are_refused(emulator, tmp_path, monkeypatch):
    # hashing lets go of the interpreter, so that it runs beside an inference of a few milliseconds
    work = "lambda: [hashlib.sha256(bytes(2**22)) for _ in iter(int, 1)]"
    busy = f"\nfor _ in range(2): threading.Thread(target={work}, daemon=True).start()\n"
    runner = tmp_path / "run_bundle.py"
    runner.write_text(Path(run_bundle.__file__).read_text() + busy)
    monkeypatch.setattr(run_bundle, "__file__", str(runner))
    with pytest.raises(DeviceError, match=r"other threads ran \d+% as long"):
        counted(emulator, "cortex-a76", "model.tflite", "ai-edge-litert")


def test_what_does_not_run_is_one_error(emulator):
    artifact = {"file": "x.tflite", "format": "tflite", "unsigned": False, "inputs": [], "outputs": []}
    with pytest.raises(DeviceError, match=r"x.tflite does not run in ai-edge-litert on an emulated cortex-a76"):
        count_inference(emulator, "cortex-a76", artifact, {"x.tflite": b"no flatbuffer"}, [], "ai-edge-litert")
    assert not list(emulator.folder.parent.glob(f".{os.getpid()}-*"))


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CPUS)
def test_it_confirms_the_bundle_in_every_runtime(emulator, made, cpu):
    verdict = validate_on(read_bundle(made), WAYS["emulator"], Options(cpu=cpu))
    found = {(row.file, row.runtime): row for row in verdict.judgements}
    assert verdict.passed and verdict.device["model"] == f"emulated {cpu}"
    assert {runtime for _, runtime in found} == set(emulator.facts["versions"]) - {"python", "numpy"}
    assert found["model.tflite", "ai-edge-litert"].identical
    for (file, _), row in found.items():
        assert row.latency_ms is None and row.model_bytes is None  # an emulator's are no device's
        assert ".float." in file or (row.max_steps or 0) <= 1
    assert not list(emulator.folder.parent.glob(f".{os.getpid()}-*"))


def test_an_unknown_cpu_is_refused():
    with pytest.raises(OptionError, match="no CPU 'max' is emulated"):
        WAYS["emulator"].open(Options(cpu="max"))


def test_the_cpu_is_the_bundles_devices_where_none_is_named():
    recorded = {"emulator": {"cpu": "cortex-a53"}}
    assert with_recorded_cpu(Options(), recorded).cpu == "cortex-a53"
    assert with_recorded_cpu(Options(cpu="cortex-a72"), recorded).cpu == "cortex-a72"
    for damaged in ({}, {"emulator": None}, {"emulator": {"cpu": 3}}, {"emulator": "x"}):
        assert with_recorded_cpu(Options(), damaged).cpu is None


def test_its_command_says_what_is_there(emulator):
    command = [sys.executable, "-m", "toolchain.cli", "emulator", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["folder"] == str(emulator.folder) and facts["cpus"] == list(CPUS) and len(facts["packages"]) > 40


@pytest.mark.slow
@pytest.mark.parametrize("numbers", load_target("arm64")[1].quantization.formats)
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76"])
def test_it_confirms_every_number_format_of_the_profile(emulator, tmp_path, cpu, numbers):
    graph = float_network()
    model = assign_params(graph, dict.fromkeys(graph.activations, (-16.0, 16.0)), Scheme().with_numbers(numbers))
    files = {"model.onnx": write_onnx(model), "model.tflite": write_tflite(model)}
    is_exact = model.has_integer_activations
    tolerance = Tolerance(1, 0.99, 1e-3) if is_exact else Tolerance(2, 0.99, 1e-3)
    bundle = write_bundle(tmp_path / "bundle", deployed(files=files, model=model, tolerance=tolerance))
    verdict = validate_on(read_bundle(bundle), WAYS["emulator"], Options(cpu=cpu))
    assert verdict.passed, list(verdict.failed)
    ran = {(row.file, row.runtime) for row in verdict.judgements if row.error is None}
    assert {("model.onnx", "onnxruntime"), ("model.tflite", "ai-edge-litert")} <= ran
    assert all(row.is_too_old for row in verdict.judgements if row.error is not None)
