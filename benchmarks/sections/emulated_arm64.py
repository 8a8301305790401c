"""Emulated 64-bit Arm: bits on four CPUs, seconds of set-up and validation, instructions beside the peer's file."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from bars import Figures, Findings
from device_shop import DeviceShop

from toolchain.devices.emulator import CPUS, Emulator, set_up
from toolchain.devices.emulator.counting import CLASSES, Counts, count_inference
from toolchain.devices.reading import Bundle, read_bundle
from toolchain.devices.session import validate_on
from toolchain.devices.ways import WAYS, Options
from toolchain.devices.ways.here import cache_folder

MODELS = ("mnist", "efficientnet_lite0")
CPU, TARGET = "cortex-a76", "arm64"
MOST_SETUP_S, MOST_VALIDATION_S, MOST_SPREAD, MOST_INSTRUCTIONS = 60.0, 60.0, 1e-3, 1.01
MOST_STEPS = {"ai-edge-litert": 0.0, "onnxruntime": 1.0, "tflite-runtime": 1.0}
REPEATS = 3


def measure_section(shop: DeviceShop, quick: bool) -> Findings:
    found = Findings("emulated_arm64", "emulated 64-bit Arm by qemu-user: outputs and executed instructions, no times")
    emulator = set_up(tell=shop.say)
    found.at_most("set-up after downloads, s", _seconds_of_set_up(shop), MOST_SETUP_S, "{:.1f}")
    models = MODELS[:1] if quick else MODELS
    for model in models:
        bundle = read_bundle(shop.deployed(model, TARGET).bundle)
        _validate(found, shop, model, bundle)
        _count(found, shop, emulator, model, bundle)
    found.notes.append("tflite-runtime 2.14: an op is off by a step in some values, outputs by more after many ops")
    return found


def _seconds_of_set_up(shop: DeviceShop) -> float:
    """In a cache of its own that has the downloads."""
    with tempfile.TemporaryDirectory(dir=shop.folder) as folder:
        for packages in cache_folder().glob("emulator-packages-*"):
            Path(folder, packages.name).symlink_to(packages)
        started = time.perf_counter()
        set_up(Path(folder))
        return time.perf_counter() - started


def _validate(found: Findings, shop: DeviceShop, model: str, bundle: Bundle) -> None:
    rows, seconds, steps = [], {}, dict.fromkeys(MOST_STEPS, 0.0)
    ops: dict[str, float] = {}
    cpu_s: dict[str, float] = {}
    for cpu in CPUS:
        shop.say(f"{model} on {cpu} ...")
        started, busy = time.perf_counter(), cpu_seconds()
        verdict = validate_on(bundle, WAYS["emulator"], Options(cpu=cpu))
        seconds[cpu] = time.perf_counter() - started
        cpu_s[cpu] = cpu_seconds() - busy
        for row in verdict.judgements:
            most = float("inf") if row.max_steps is None else row.max_steps
            steps[row.runtime] = max(steps[row.runtime], most)
            if row.op_steps is not None:
                ops[row.runtime] = max(ops.get(row.runtime, 0.0), row.op_steps.max_steps)
            within = "-" if row.share_within is None else f"{row.share_within:.2%}"
            bits = "yes" if row.identical else "no"
            rows.append((cpu, f"{row.runtime} {row.version}", bits, f"{most:g}", within, "yes" if row.passed else "NO"))
    columns = ("CPU", "runtime", "this host's bits", "most steps", "within the bundle's tolerance", "passes")
    found.figures.append(Figures(f"{model}: outputs on emulated CPUs", columns, tuple(rows)))
    for runtime, most in steps.items():
        what = f"{model}: {runtime} on {len(CPUS)} CPUs, outputs' steps from this host"
        found.at_most(what, most, MOST_STEPS[runtime], "{:g}")
    for runtime, most in ops.items():
        found.at_most(f"{model}: {runtime} on {len(CPUS)} CPUs, steps of one op fed alike", most, 1.0, "{:g}")
    found.at_most(f"{model}: validation of both files, s", max(seconds.values()), MOST_VALIDATION_S, "{:.1f}")
    found.told("  CPU time, s", f"{max(cpu_s.values()):.1f}")
    found.facts[f"{model}_validation_s"] = {"wall": seconds, "cpu": cpu_s}


def cpu_seconds() -> float:
    """Of this process and all that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _count(found: Findings, shop: DeviceShop, emulator: Emulator, model: str, bundle: Bundle) -> None:
    ours = [count_file(emulator, CPU, bundle.folder / "model.tflite") for _ in range(REPEATS)]
    totals = [counts.total for counts in ours]
    found.at_most(f"{model}: spread of {REPEATS} counts", max(totals) / min(totals) - 1, MOST_SPREAD, "{:.1e}")
    counted = {"ours": ours[-1]}
    peer, what = shop.peer(model), f"{model}: instructions, ours / litert-torch"
    if peer is None or peer.path is None:
        found.told(what, f"{totals[-1] / 1e6:.2f} million, no peer", f"<= {MOST_INSTRUCTIONS}")
    else:
        counted["litert-torch"] = count_file(emulator, CPU, peer.path)
        found.at_most(what, totals[-1] / counted["litert-torch"].total, MOST_INSTRUCTIONS, "{:.3f}")
    found.figures.append(_table(model, counted))
    found.facts[f"{model}_instructions"] = {whose: dict(counts.by_class) for whose, counts in counted.items()}


def count_file(emulator: Emulator, cpu: str, path: Path) -> Counts:
    """Any .tflite file, ours or not, on zeros: no kernel's way depends on values."""
    interpreter = Interpreter(model_path=str(path))
    given, gives = interpreter.get_input_details(), interpreter.get_output_details()
    artifact = {"file": path.name, "format": "tflite", "inputs": _ports(given), "outputs": _ports(gives)}
    inputs = [np.zeros(port["shape"], port["dtype"]) for port in given]
    return count_inference(emulator, cpu, artifact, {path.name: path.read_bytes()}, inputs, "ai-edge-litert")


def _ports(details: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"name": port["name"], "index": int(port["index"])} for port in details]


def _table(model: str, counted: dict[str, Counts]) -> Figures:
    classes = [name for name in CLASSES if any(counts.by_class[name] for counts in counted.values())]
    rows = [(whose, f"{c.total / 1e6:.3f}", *(f"{c.by_class[name] / 1e6:.3f}" for name in classes))
            for whose, c in counted.items()]  # fmt: skip
    return Figures(f"{model}: million instructions an inference on {CPU}", ("whose", "all", *classes), tuple(rows))
