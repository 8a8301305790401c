"""Executed instructions of one inference, by class, from the counting plugin: exact where a processor's clock is not.

The guest runs one inference, which lays out weights and makes buffers, then some more, in one thread; what the runtime
itself executes in each lies between two markers. The least of them counts: what a runtime's sleeping threads do now and
then only adds. Counts show which kernels a runtime chose for the CPU and how much work a file is; they are not time, as
nothing is known of pipelines and memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from toolchain.atomic import remove_leftovers, scratch_folder
from toolchain.devices import run_bundle
from toolchain.devices.emulator.emulator import Emulator
from toolchain.devices.ways.way import Limits, Process
from toolchain.errors import DeviceError

CLASSES: Final = (
    "dot",
    "matrix_multiply",
    "multiply_add",
    "load_store",
    "load_store_simd",
    "branch",
    "integer",
    "simd",
)
"""As the plugin names them: dot products; matrix multiplies; other SIMD and float instructions that multiply and add;
loads and stores of general and of SIMD registers; branches; integer; other SIMD and float."""

OTHERS: Final = 0.02
"""Most that other threads may run, as a share of the inference: qemu has one of its own, and onnxruntime one that
sleeps."""

_GUEST: Final = Path(__file__).with_name("count_inferences.py")
_LINES: Final = "counts.jsonl"


@dataclass(frozen=True)
class Counts:
    """Instructions of one inference: by class, and all."""

    by_class: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_class.values())


def count_inference(
    emulator: Emulator,
    cpu: str,
    artifact: Mapping[str, Any],
    files: Mapping[str, bytes],
    inputs: Sequence[np.ndarray],
    runtime: str,
    limits: Limits | None = None,
) -> Counts:
    """Instructions that `runtime` executes on `cpu` for one sample, an array a port, of `artifact` (see
    `golden.describe_file`), which is in `files`. Raises DeviceError where the device does not run it."""
    if emulator.uncounted is not None:
        raise DeviceError(f"the emulator counts no instructions: {emulator.uncounted}")
    cache = emulator.folder.parent
    try:
        remove_leftovers(cache)
        scratch = scratch_folder(cache)
    except OSError as error:
        raise DeviceError(f"no room to count: {error.strerror}", where=str(error.filename)) from error
    try:
        _write(scratch, artifact, files, inputs)
        env = emulator.environment(Path()) | {"QEMU_PLUGIN": f"{_escaped(emulator.plugin)},out={_LINES}"}
        command = [str(emulator.python(cpu)), "-s", _GUEST.name, runtime]
        ran = Process.start(command, cwd=scratch, env=env).wait((limits or Limits()).run, "counting instructions")
        if ran.code:
            why = ran.last_line or f"exit code {ran.code}"
            raise DeviceError(f"{artifact['file']} does not run in {runtime} on an emulated {cpu}: {why}")
        return read_counts((scratch / _LINES).read_text(), ran.out)
    except OSError as error:
        raise DeviceError(f"no room to count: {error.strerror}", where=str(error.filename)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(folder: Path, artifact: Mapping[str, Any], files: Mapping[str, bytes], inputs: Sequence[np.ndarray]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for source in (_GUEST, Path(run_bundle.__file__)):
        shutil.copyfile(source, folder / source.name)
    names = [f"input_{port}.npy" for port in range(len(inputs))]
    for name, array in zip(names, inputs, strict=True):
        np.save(folder / name, array)
    spec = {"artifact": dict(artifact), "inputs": names}
    (folder / "spec.json").write_text(json.dumps(spec))


def _escaped(path: Path) -> str:
    """As qemu's lists of options take it."""
    return str(path).replace(",", ",,")


def read_counts(lines: str, printed: str) -> Counts:
    """Counts of an inference, from the plugin's lines: those of marker 1 less those of marker 0, of the least inference
    behind the first; and what the guest printed last.

    Raises DeviceError where either is missing or damaged, or where other threads ran too: their instructions are
    counted without a lock, and come as the host's scheduler likes.
    """
    try:
        marks = [json.loads(line) for line in lines.splitlines()]
        if [int(mark["mark"]) for mark in marks] != [0, 1] * (len(marks) // 2):
            raise ValueError("markers are missing")
        pairs = list(zip(marks[::2], marks[1::2], strict=True))
        counts = min((_between(*pair) for pair in pairs[1:] or pairs), key=lambda found: found.total)
        times = json.loads(printed.splitlines()[-1])
        own, others = int(times["own_ns"]), int(times["others_ns"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DeviceError(f"the emulated device wrote no whole counts: {error}") from error
    if others > OTHERS * own:
        raise DeviceError(f"other threads ran {others / max(own, 1):.0%} as long, and counts hold for one thread")
    return counts


def _between(first: Mapping[str, Any], second: Mapping[str, Any]) -> Counts:
    return Counts({name: int(second[name]) - int(first[name]) for name in CLASSES})
