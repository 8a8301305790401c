"""Bundles: a deployment's files, golden samples, what they must give, and the one file that runs them anywhere.

    bundle/
      manifest.json       schema, files with bytes and sha256, artifacts, tolerance, provenance; its sha256 is the id
      SHA256SUMS          of all the others
      run_bundle.py       standard library and numpy
      model.onnx ...      as deployed
      golden/FILE/        input_0.npy, reference_0.npy (float model), RUNTIME_0.npy (this machine's runtimes)
      c/                  model.h, model_golden.h: the same for firmware, where the device is a microcontroller

The same deployment gives the same bytes: nothing in a bundle tells the time.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from toolchain.atomic import unfinished_folder
from toolchain.devices import run_bundle
from toolchain.devices.c_headers import HeaderSource, c_headers
from toolchain.devices.golden import FLOAT_STEPS, Golden, Samples, make_golden
from toolchain.devices.reading import MANIFEST, RUNNER, SUMS, cpu_id
from toolchain.formats.onnx.external import SUFFIX as DATA_SUFFIX
from toolchain.formats.tflite.native_log import without_notices
from toolchain.formats.tflite.parse import parse
from toolchain.quantization import QuantizedGraph

HOST_RUNTIMES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
"""What gives the expected outputs, by format."""

MICRO = "tflite-micro"
"""What gives them for a microcontroller, where it is installed: CMSIS-NN, which runs there, follows its kernels."""

LINEAR_STEPS = 3
"""The most by which they are off where it is not, in steps: its FULLY_CONNECTED rounds once, LiteRT's twice."""

MOST_SAMPLES = 8
MOST_BYTES = 2**25
"""Of golden arrays, a file: a bundle is sent to devices with little of everything."""

Files: TypeAlias = Mapping[str, bytes]
Rows: TypeAlias = tuple[tuple[np.ndarray, ...], ...]


@dataclass(frozen=True)
class Tolerance:
    """How far another runtime may be: within `steps` steps on a share of the values, float files within `relative` of
    an output's range."""

    steps: int
    share: float
    relative: float


@dataclass(frozen=True)
class Deployed:
    """What goes into a bundle: files by name, the specification they were written from, and who made them of what
    (plain JSON values)."""

    files: Files
    model: QuantizedGraph
    samples: Samples
    tolerance: Tolerance
    provenance: Mapping[str, Any]
    arena_bytes: Mapping[str, int] | None = None
    """Set where the device is a microcontroller: the arena by file, of those for which it is known."""


def fitting_samples(bytes_of_one: int) -> int:
    """How many samples of that size a bundle takes: a few, at least one."""
    return max(1, min(MOST_SAMPLES, MOST_BYTES // max(bytes_of_one, 1)))


def write_bundle(folder: Path, deployed: Deployed) -> Path:
    """Write the bundle to `folder`, whole, in the place of one that was there. Raises OSError where it cannot be."""
    files = bundle_files(deployed)
    made = folder.with_name(f".{folder.name}.next")
    shutil.rmtree(made, ignore_errors=True)
    with unfinished_folder(made) as unfinished:
        for name, content in files.items():
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)
    return made.replace(folder)


def bundle_files(deployed: Deployed) -> dict[str, bytes]:
    """Every file of the bundle by its path there, the manifest last."""
    runner = Path(run_bundle.__file__).read_bytes()
    files: dict[str, bytes] = {RUNNER: runner, **deployed.files}
    artifacts = []
    for name, content in deployed.files.items():
        if not name.endswith(DATA_SUFFIX):
            made, arrays, headers = _artifact(name, content, deployed)
            artifacts.append(made)
            files |= arrays | headers
    manifest: dict[str, Any] = {
        "schema": run_bundle.SCHEMA,
        "samples": len(deployed.samples),
        "artifacts": artifacts,
        "provenance": dict(deployed.provenance),
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    content = (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode()
    sums = run_bundle.sums_of(manifest["files"], hashlib.sha256(content).hexdigest())
    return files | {SUMS: sums.encode(), MANIFEST: content}


def _artifact(
    name: str, content: bytes, deployed: Deployed
) -> tuple[dict[str, Any], dict[str, bytes], dict[str, bytes]]:
    """The manifest's entry of one file, its golden arrays as .npy by path, and its headers where it has any."""
    model = deployed.model
    if ".float." in name:
        model = QuantizedGraph(model.graph, {})
    data = deployed.files.get(name + DATA_SUFFIX)
    golden = make_golden(name, content, model, deployed.samples, data)
    entry, place = golden.artifact, f"golden/{name}"
    arrays: dict[str, bytes] = {}
    for port, array in zip(entry["inputs"], golden.inputs, strict=True):
        port["golden"] = f"{place}/input_{len(arrays)}.npy"
        arrays[port["golden"]] = npy(array)
    for at, (port, array) in enumerate(zip(entry["outputs"], golden.references, strict=True)):
        port["reference"] = f"{place}/reference_{at}.npy"
        arrays[port["reference"]] = npy(array)
    entry["tolerance"] = _tolerance(model, deployed.tolerance)
    runtime = _runtime(entry["format"], model, deployed)
    expected = _expected(name, content, data, golden, runtime)
    kept = {f"{place}/{runtime}_{at}.npy": npy(array) for at, array in enumerate(expected)}
    entry["expected"] = {
        "runtime": runtime,
        "version": run_bundle.installed_version(runtime),
        "kernels": run_bundle.RUNTIMES[runtime][2],
        "cpu": cpu_id(run_bundle.device_facts()),
        "outputs": list(kept),
    }
    return entry, arrays | kept, _headers(name, content, golden, expected, runtime, deployed)


def _runtime(kind: str, model: QuantizedGraph, deployed: Deployed) -> str:
    is_micro = deployed.arena_bytes is not None and kind == "tflite" and not model.is_float
    return MICRO if is_micro and MICRO in run_bundle.installed_runtimes() else HOST_RUNTIMES[kind]


def _headers(
    name: str, content: bytes, golden: Golden, expected: list[np.ndarray], runtime: str, deployed: Deployed
) -> dict[str, bytes]:
    if deployed.arena_bytes is None or not name.endswith(".tflite") or ".float." in name:
        return {}
    operators = [operator.name for operator in parse(content).operators]
    source = HeaderSource(
        name.removesuffix(".tflite"),
        content,
        operators,
        golden.inputs,
        expected,
        golden.artifact["inputs"],
        golden.artifact["outputs"],
        steps=LINEAR_STEPS if runtime != MICRO and "FULLY_CONNECTED" in operators else 0,
        runtime=f"{runtime} {run_bundle.installed_version(runtime)}",
        arena_bytes=deployed.arena_bytes.get(name),
    )
    return {f"c/{header}": text for header, text in c_headers(source).items()}


def _tolerance(model: QuantizedGraph, wanted: Tolerance) -> dict[str, Any]:
    if model.is_float:
        return {"relative": wanted.relative}
    return {"steps": wanted.steps, "share": wanted.share, "float_steps": FLOAT_STEPS}


def _expected(name: str, content: bytes, data: bytes | None, golden: Golden, runtime: str) -> list[np.ndarray]:
    """What this machine's runtime gives, through the very code that runs on the device."""
    with tempfile.TemporaryDirectory() as scratch, without_notices():
        folder = Path(scratch)
        (folder / name).write_bytes(content)
        if data is not None:
            (folder / (name + DATA_SUFFIX)).write_bytes(data)
        run = run_bundle.load(golden.artifact, folder, runtime, ())
        # copies: an interpreter may hand out its own buffers
        rows = [[np.array(a) for a in run(row)] for row in zip(*golden.inputs, strict=True)]
    return [np.stack(column) for column in zip(*rows, strict=True)]


def golden_rows(
    name: str, content: bytes, model: QuantizedGraph, samples: Samples, data: bytes | None = None
) -> tuple[Rows, Rows]:
    """Samples as the file `name` stores them, and what this machine's runtime gives of them, `[sample][port]`."""
    golden = make_golden(name, content, model, samples, data)
    expected = _expected(name, content, data, golden, HOST_RUNTIMES[golden.artifact["format"]])
    return tuple(zip(*golden.inputs, strict=True)), tuple(zip(*expected, strict=True))


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of an .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
