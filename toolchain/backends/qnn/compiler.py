"""Qualcomm's compiler for the HTP, asked in a process of its own: what it places where, what its emulator computes, and
the context binary it makes for a SoC.

The provider falls back on the CPU without a word where its set-up fails, and compiles for another architecture where it
does not know the one asked for: the trace it writes is held to the SoC.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.backends.qnn import htp_session
from toolchain.errors import DeviceError, UnsupportedError
from toolchain.formats.onnx.external import SUFFIX
from toolchain.profiles.backends import HTP_SOCS

DISTRIBUTION = "onnxruntime-qnn"
INSTALL = "pip install 'edge-toolchain[htp]'"
SECONDS = 900.0
_MODEL = "model.onnx"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(r"\[E:[^\]]*\] *(.*)")
_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


@dataclass(frozen=True)
class Compiled:
    """One file on the HTP of one SoC. `trace` is what the provider says of every node; `outputs` by port, (N, *port);
    `files` the context model and its binary, as they were named."""

    soc: str
    trace: Mapping[str, Any]
    outputs: Mapping[str, np.ndarray]
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def missing() -> str | None:
    """What must be installed, and what is done without it."""
    if find_spec("onnxruntime_qnn") is not None:
        return None
    what = f"placement and steps on Qualcomm's HTP are not measured, as {DISTRIBUTION} is not installed ({INSTALL})"
    return f"{what}; the file is written and validated all the same"


def version() -> str:
    """Version of the provider's distribution."""
    return metadata.version(DISTRIBUTION)


def compile_file(
    content: bytes,
    soc: str,
    inputs: Mapping[str, Sequence[np.ndarray]],
    *,
    data: bytes | None = None,
    context: str | None = None,
    seconds: float = SECONDS,
) -> Compiled:
    """Compile an ONNX file for `soc` and run it on `inputs`, (N, *port) by port. `context` is the name of the context
    file to make, `data` what lies beside the file.

    Raises UnsupportedError where the compiler refuses the file, DeviceError where it dies, does not answer within
    `seconds`, or compiles for something else.
    """
    with tempfile.TemporaryDirectory(prefix="htp-") as folder:
        place = Path(folder)
        (place / _MODEL).write_bytes(content)
        if data is not None:
            (place / (_MODEL + SUFFIX)).write_bytes(data)
        np.savez(place / "inputs.npz", *(np.stack(arrays) for arrays in inputs.values()))
        options = {"soc_model": str(HTP_SOCS[soc].model), "htp_arch": str(HTP_SOCS[soc].htp_arch)}
        job = {"model": _MODEL, "options": options, "context": context, "inputs": list(inputs)}
        (place / "job.json").write_text(json.dumps(job))
        said = _run(place, soc, seconds)
        trace = _read_trace(place, soc, said)
        names = json.loads((place / "done.json").read_text())["outputs"]
        with np.load(place / "outputs.npz", allow_pickle=False) as archive:
            outputs = dict(zip(names, (archive[key] for key in archive.files), strict=True))
        return Compiled(soc, trace, outputs, _context_files(place, context))


def _run(folder: Path, soc: str, seconds: float) -> str:
    """What the process said. Its own folder is not searched for modules, as names there are those of others."""
    command = [sys.executable, "-P", str(Path(htp_session.__file__).resolve()), "job.json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"QNN does not compile the file for {soc} and run it within {seconds:g} s") from error
    except OSError as error:
        raise DeviceError(f"QNN did not start: {error.strerror}") from error
    said = _COLOUR.sub("", done.stdout + done.stderr)
    if done.returncode < 0:
        raise DeviceError(f"QNN died of signal {-done.returncode} over {soc}: {_last_line(said)}")
    if done.returncode:
        raise _refusal(said, soc)
    return said


def _refusal(said: str, soc: str) -> UnsupportedError | DeviceError:
    """What to raise of a process that ended with an error of onnxruntime, or of another kind."""
    last = _last_line(said)
    if "[ONNXRuntimeError]" in last:
        return UnsupportedError(
            f"QNN does not compile the file for {soc}: {_STATUS.sub('', last[last.index('[ONNX') :])}",
            hint=f"toolchain lint names the ops that are known to fail; or leave {soc} out of the profile's socs",
        )
    return DeviceError(f"QNN did not run: {last}")


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip() and "LIBNATIVE" not in line]
    return lines[-1][:400] if lines else "it said nothing"


def _read_trace(folder: Path, soc: str, said: str) -> dict[str, Any]:
    """The provider's trace. Raises DeviceError where there is none, or one of another target."""
    try:
        trace: dict[str, Any] = json.loads((folder / htp_session.TRACE).read_text())
        (target,) = (entry["compilation_target"] for entry in trace["soc_traces"])
        found = (target["htp_arch"], target["soc_model"])
    except FileNotFoundError as error:
        errors = _ERROR.findall(said)
        raise DeviceError(f"QNN compiled nothing: {errors[0][:300] if errors else _last_line(said)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"QNN's trace of ops cannot be read: {error!r}") from error
    if found != (f"V{HTP_SOCS[soc].htp_arch}", HTP_SOCS[soc].model):
        raise DeviceError(f"QNN compiled for architecture {found[0] or 'none'} of SoC {found[1]}, not for {soc}")
    return trace


def _context_files(folder: Path, context: str | None) -> dict[str, bytes]:
    """The context model and its binary; nothing where no node was compiled."""
    if context is None or not (folder / context).exists():
        return {}
    stem = Path(context).stem
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name.startswith(stem)}
