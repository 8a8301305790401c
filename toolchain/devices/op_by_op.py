"""One op at a time: what this machine's runtime makes of the very inputs that an op had on the device.

Where kernels round another way, a step in some values of every op grows over depth to several at the outputs. What
tells such a runtime from a wrong one is the difference of a single op,

    |device(op) - host(op)| in steps, both from the device's own inputs of that op

so the device records what it computes on the way, the file is cut into its ops, and each runs here.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.devices import run_bundle
from toolchain.devices.reading import Bundle
from toolchain.formats.artifact import Piece
from toolchain.formats.onnx.external import SUFFIX as DATA_SUFFIX
from toolchain.formats.onnx.pieces import onnx_pieces
from toolchain.formats.onnx.reader import parse_onnx
from toolchain.formats.tflite.native_log import without_notices
from toolchain.formats.tflite.pieces import tflite_pieces

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class OpSteps:
    """The op that differs most: by how many steps, in which share of its values, and of how many ops compared."""

    op: str
    tensor: str
    max_steps: float
    share: float
    compared: int


def op_steps(bundle: Bundle, file: str, seen: Tensors) -> OpSteps | None:
    """Compare every op of an integer file whose in- and outputs a device recorded, `seen` by the file's names, for the
    first sample. None where there is none."""
    manifest, _ = run_bundle.read_manifest(bundle.folder)
    artifact = next(entry for entry in manifest["artifacts"] if entry["file"] == file)
    inputs = artifact["inputs"]
    known = {port["name"]: np.load(bundle.folder / port["golden"], allow_pickle=False)[0] for port in inputs}
    known |= seen
    worst, compared = OpSteps("", "", -1.0, 0.0, 0), 0
    with without_notices(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        warnings.simplefilter("ignore")
        for piece in _pieces(bundle.folder, artifact, known):
            found = _differences(piece, artifact, known, Path(scratch))
            compared += bool(found)
            worst = max([worst, *found], key=lambda one: one.max_steps)
    return OpSteps(worst.op, worst.tensor, worst.max_steps, worst.share, compared) if compared else None


def host_runtime(artifact: Mapping[str, Any]) -> str:
    """The runtime that gave a file's expected outputs, where it is here; else the one of its format."""
    expected = artifact["expected"]["runtime"]
    if expected in run_bundle.installed_runtimes():
        return str(expected)
    return "onnxruntime" if artifact["format"] == "onnx" else "ai-edge-litert"


def _pieces(folder: Path, artifact: Mapping[str, Any], known: Tensors) -> Iterator[Piece]:
    """Those whose in- and outputs are known, integers among the outputs."""
    file = artifact["file"]
    content, beside = (folder / file).read_bytes(), folder / (file + DATA_SUFFIX)
    if artifact["format"] == "tflite":
        found = tflite_pieces(content)
    else:
        model = parse_onnx(content, beside.read_bytes() if beside.is_file() else None)
        found = onnx_pieces(model, known, [entry["name"] for entry in artifact["tensors"]])
    for piece in found:
        names = [port["name"] for port in (*piece.inputs, *piece.outputs)]
        if all(name in known for name in names) and any(_is_integer(known[p["name"]]) for p in piece.outputs):
            yield piece


def _differences(piece: Piece, artifact: Mapping[str, Any], known: Tensors, scratch: Path) -> list[OpSteps]:
    """Of each output of integers; none where the piece does not run here with what the device says it computed."""
    name = f"piece.{artifact['format']}"
    (scratch / name).write_bytes(piece.content)
    described = {"file": name, "unsigned": artifact["unsigned"], "inputs": piece.inputs, "outputs": piece.outputs}
    try:
        run = run_bundle.load(described, scratch, host_runtime(artifact), ())
        given = run([known[port["name"]] for port in piece.inputs])
    except Exception:  # each runtime has its own; results may come from anywhere
        return []
    found = []
    for port, ours in zip(piece.outputs, given, strict=True):
        theirs = known[port["name"]]
        if _is_integer(ours) and ours.shape == theirs.shape:
            steps = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
            share = float((steps > 0).mean()) if steps.size else 0.0
            found.append(OpSteps(piece.op, str(port["name"]), float(steps.max(initial=0)), share, 1))
    return found


def _is_integer(values: np.ndarray) -> bool:
    return values.dtype.kind in "iu"
