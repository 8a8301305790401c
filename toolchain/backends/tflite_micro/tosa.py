"""An independent check: the file in Arm's TOSA reference model, where an interpreter has it.

TOSA is specified to the bit, FULLY_CONNECTED's one rounding included, so that its integers should be tflite-micro's.
tosa-tools pins a numpy of its own: it is looked for in this interpreter and in the one that `TOSA_PYTHON` names
(`make .venv/tosa.stamp` sets one up).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from toolchain.backends.backend import Rows
from toolchain.backends.tflite_micro import tosa_child

SECONDS = 300.0


def tosa_python() -> str | None:
    """An interpreter that has the reference model, or None."""
    if find_spec("tosa_reference_model") is not None:
        return sys.executable
    named = os.environ.get("TOSA_PYTHON", "")
    return named if named and Path(named).exists() else None


def run_tosa(python: str, content: bytes, inputs: Rows, shapes: tuple[tuple[int, ...], ...]) -> Rows | str:
    """Outputs of every sample in the shapes of the file's, or what is wrong in a line."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "model.tflite").write_bytes(content)
        for at, row in enumerate(inputs):
            for port, array in enumerate(row):
                np.save(folder / f"input_{at}_{port}.npy", np.ascontiguousarray(array))
        # packages of this interpreter are not the other's
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        command = [python, tosa_child.__file__, scratch]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False, env=kept
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the TOSA reference model does not run: {error}"
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            errors = [line for line in said if "error" in line.lower()] or said[-1:] or [f"exit code {done.returncode}"]
            return f"the TOSA reference model does not take the file: {errors[0].strip()[:200]}"
        return tuple(
            tuple(np.load(folder / f"output_{at}_{port}.npy").reshape(shape) for port, shape in enumerate(shapes))
            for at in range(len(inputs))
        )
