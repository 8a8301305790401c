"""What Arm's Vela compiler makes of a .tflite file, where it is installed: bytes of weights as the NPU's decoder reads
them, and cycles by its performance model.

Vela (PyPI `ethos-u-vela`) runs in a process of its own; nothing of it is imported here.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolchain.profiles import DeviceProfile

TIMEOUT_S = 300
NOT_INSTALLED = "bytes as the NPU encodes them: not measured, as Vela is not installed (pip install ethos-u-vela)"


@dataclass(frozen=True)
class NpuCost:
    """Bytes of weights before and after the NPU's encoding, of everything in flash, and of activations in SRAM; cycles
    of one inference."""

    weight_bytes: int
    encoded_weight_bytes: int
    flash_bytes: int
    sram_bytes: int
    cycles: int


def is_npu(profile: DeviceProfile) -> bool:
    """Whether Vela compiles for the device."""
    return profile.compute.isa.startswith("ethos-u") and profile.compute.int8_macs_per_cycle is not None


def compile_for_npu(content: bytes, profile: DeviceProfile) -> NpuCost | str:
    """The costs of a TFLite file on the device, or a line that says why there are none."""
    if not _is_installed():
        return NOT_INSTALLED
    device = f"{profile.compute.isa}-{profile.compute.int8_macs_per_cycle}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        command = [
            sys.executable,
            "-m",
            "ethosu.vela",
            str(path),
            "--accelerator-config",
            device,
            "--output-dir",
            folder,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"Vela did not run: {error}"
        found = sorted(Path(folder).glob("*_summary_*.csv"))
        if done.returncode or not found:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            return f"Vela does not compile the file for {device}: {said[-1]}"
        with found[0].open(newline="") as rows:
            return _cost(next(csv.DictReader(rows)))


def _is_installed() -> bool:
    try:
        return find_spec("ethosu.vela") is not None
    except ModuleNotFoundError:
        return False


def _cost(row: Mapping[str, Any]) -> NpuCost:
    return NpuCost(
        weight_bytes=round(float(row["total_original_weights"])),
        encoded_weight_bytes=round(float(row["total_npu_encoded_weights"])),
        flash_bytes=_kib(row, "on_chip_flash") + _kib(row, "off_chip_flash"),
        sram_bytes=_kib(row, "sram"),
        cycles=round(float(row["cycles_total"])),
    )


def _kib(row: Mapping[str, Any], memory: str) -> int:
    return round(1024 * float(row[f"{memory}_memory_used"]))
