"""tflite-micro on this host, always in a process of its own (`child`): a file that ends it costs one error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from toolchain.backends.backend import Rows
from toolchain.backends.tflite_micro import child
from toolchain.backends.tflite_micro.arena import Arena, read_report
from toolchain.backends.tflite_micro.plan import ALIGNMENT
from toolchain.errors import DeviceError, UnsupportedError

SECONDS = 600.0
"""The longest that a file may run: its plain kernels are slow, but what fits a microcontroller is small."""

_COMPLAINTS = ("Traceback", "File ", "RuntimeError", "raise ", "[RecordingMicroAllocator]", "warning:")


@dataclass(frozen=True)
class Ran:
    """Outputs of every sample; the arena, or what the tensors asked for were for the first sample."""

    outputs: Rows
    arena: Arena | None = None
    tensors: Mapping[int, np.ndarray] = field(default_factory=dict, repr=False)


def run(
    content: bytes,
    inputs: Rows,
    arena_bytes: int,
    *,
    outputs: int,
    tensors: Sequence[int] = (),
    seconds: float = SECONDS,
) -> Ran:
    """Run a file on every sample, in an arena of so many bytes. With `tensors` nothing of the arena is shared, and it
    is not reported.

    Raises UnsupportedError, in the interpreter's words, where it refuses the file or ends of it; DeviceError where it
    takes longer than `seconds`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = [[f"input_{at}_{port}.npy" for port in range(len(row))] for at, row in enumerate(inputs)]
        for files, row in zip(names, inputs, strict=True):
            for name, array in zip(files, row, strict=True):
                np.save(folder / name, np.ascontiguousarray(array))
        # structures are put at the arena's end, which costs bytes where it is not aligned
        arena_bytes = -(-arena_bytes // ALIGNMENT) * ALIGNMENT
        asked = {"arena": arena_bytes, "inputs": names, "outputs": outputs, "tensors": list(tensors)}
        said = _in_child(folder, content, asked, seconds).stderr
        rows = tuple(
            tuple(np.load(folder / f"output_{at}_{p}.npy") for p in range(outputs)) for at in range(len(names))
        )
        seen = {index: np.load(folder / f"tensor_{index}.npy") for index in tensors}
        return Ran(rows, None if tensors else read_report(said), seen)


def smallest_arena(content: bytes, least: int) -> int:
    """The smallest arena, of at least so many bytes, that the file can be loaded in: what stays there, and what loading
    takes for a while. Raises UnsupportedError and DeviceError as `run` does."""
    with tempfile.TemporaryDirectory() as scratch:
        least = -(-least // ALIGNMENT) * ALIGNMENT
        asked = {"smallest": {"from": least, "step": ALIGNMENT}}
        return int(_in_child(Path(scratch), content, asked, SECONDS).stdout)


def compress(content: bytes, tables: Sequence[Mapping[str, int | None]]) -> bytes:
    """The file with weights as tables and indices (`child`). Raises UnsupportedError where it cannot be made."""
    with tempfile.TemporaryDirectory() as scratch:
        _in_child(Path(scratch), content, {"tables": list(tables)}, SECONDS)
        return Path(scratch, "compressed.tflite").read_bytes()


def _in_child(
    folder: Path, content: bytes, asked: Mapping[str, object], seconds: float
) -> subprocess.CompletedProcess[str]:
    (folder / "model.tflite").write_bytes(content)
    (folder / "request.json").write_text(json.dumps(asked))
    command = [sys.executable, child.__file__, str(folder)]
    try:
        # C writes its report and complaints past Python, to file descriptor 2
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"tflite-micro gives no answer within {seconds:g} s") from error
    if done.returncode:
        raise UnsupportedError(f"tflite-micro {_reason(done.returncode, done.stderr)}")
    return done


def _reason(code: int, text: str) -> str:
    said = [line.strip() for line in text.splitlines() if line.strip()]
    words = [line for line in said if not line.startswith(_COMPLAINTS)] or said[-1:]
    ended = f"is ended by {signal.Signals(-code).name}" if code < 0 else "refuses the file"
    return ": ".join([ended, *words[:1]])[:300]
