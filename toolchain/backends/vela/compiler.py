"""Runs Vela's command line in a process of its own, which may die of a file, and keeps what it leaves.

    vela model.tflite --config Arm/vela.ini --accelerator-config A --system-config S --memory-mode M ...

Nothing of Vela is imported here. It dies of a floating point exception on int4 weights, so element types are looked at
before (`toolchain.backends.vela.dtypes`).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from toolchain.backends.vela.installation import CONFIG
from toolchain.errors import DeviceError, UnsupportedError
from toolchain.profiles.backends import Vela

TIMEOUT_S = 600
_STEM = "model"
_MOST_LINES = 3


@dataclass(frozen=True)
class Compiled:
    """What Vela leaves of one file: the summary and the layers as CSV texts, what it printed, and the file for the
    device, which no interpreter on the host runs."""

    summary: str = field(repr=False)
    layers: str = field(repr=False)
    printed: str = field(repr=False)
    content: bytes = field(repr=False)


@lru_cache(maxsize=2)  # the price list and the measurement of one deployment ask for the same file
def compile_file(content: bytes, options: Vela) -> Compiled:
    """Compile a TFLite file. Raises UnsupportedError where Vela refuses it, DeviceError where Vela itself fails."""
    with tempfile.TemporaryDirectory(prefix="toolchain-vela-") as name:
        folder = Path(name)
        path = folder / f"{_STEM}.tflite"
        path.write_bytes(content)
        done = _run(path, folder / "out", options)
        if done.returncode:
            raise _failure(done, options)
        return _collect(folder / "out", done.stdout)


def _run(path: Path, out: Path, options: Vela) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ethosu.vela", str(path), "--config", CONFIG, "--output-dir", str(out)]
    command += ["--accelerator-config", options.accelerator, "--system-config", options.system_config]
    # not --show-cpu-operations: Vela 5.2 dies of it where it makes an argmax of several operations
    command += ["--memory-mode", options.memory_mode, "--verbose-performance"]
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"Vela was not done after {TIMEOUT_S} s", hint="try a smaller model") from error
    except OSError as error:
        raise DeviceError(f"Vela did not start: {error}", hint="install the extra npu anew") from error


def _failure(done: subprocess.CompletedProcess[str], options: Vela) -> DeviceError | UnsupportedError:
    if done.returncode < 0:
        died = signal.Signals(-done.returncode).name
        return DeviceError(f"Vela died of {died} on the file", hint="report the model to the makers of Vela")
    said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    last = said[-1] if said else f"exit code {done.returncode}"
    if "Traceback" in done.stderr and not last.startswith("RuntimeError"):  # which is how its core refuses a file
        return DeviceError(f"Vela fails on the file: {last}", hint="report the model to the makers of Vela")
    return UnsupportedError(f"Vela does not compile the file for {options.accelerator}: {last}")


def _collect(out: Path, printed: str) -> Compiled:
    summaries, layers = sorted(out.glob(f"{_STEM}_summary_*.csv")), out / f"{_STEM}_per-layer.csv"
    compiled = out / f"{_STEM}_vela.tflite"
    if not summaries or not layers.is_file() or not compiled.is_file():
        said = "; ".join(line for line in printed.splitlines()[-_MOST_LINES:] if line.strip())
        raise DeviceError(f"Vela ended without its tables: {said or 'it said nothing'}", hint="install Vela 5.2")
    summary, table = (path.read_text(encoding="utf-8", errors="replace") for path in (summaries[0], layers))
    return Compiled(summary, table, printed, compiled.read_bytes())
