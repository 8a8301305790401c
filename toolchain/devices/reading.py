"""Bundles and results as they come from elsewhere: every byte checked, damage is one OptionError."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from toolchain.devices import run_bundle
from toolchain.errors import OptionError

MANIFEST: Final = "manifest.json"
RUNNER: Final = "run_bundle.py"
SUMS: Final = "SHA256SUMS"
RESULTS: Final = "results.json"

_DAMAGE: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError)
_NUMBERS: Final = "biuf"
_AGAIN: Final = "run the bundle on the device again: python3 run_bundle.py"
_PERCENTILES: Final = ("count", "min", "p10", "p50", "p90", "p99")


@dataclass(frozen=True)
class Port:
    """An output as the manifest has it. `step` is what differences are counted in, None for a share of the range;
    `real` is False of indices and booleans, which are right or wrong."""

    name: str
    step: float | None
    scale: float | None
    zero_point: int
    real: bool
    reference: np.ndarray = field(repr=False)
    expected: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Artifact:
    """One file, what it must give (each (N, *shape)), and which runtime here said so. Either `steps` or `relative` is
    set. `integer`: integers alone are computed, so that one runtime's kernels give the same bits on any CPU.
    `oldest_runtime`: the first release of TensorFlow Lite that runs the file, where it says so."""

    file: str
    format: str
    integer: bool
    outputs: tuple[Port, ...]
    runtime: str
    version: str
    kernels: str
    cpu: str
    steps: int | None
    share: float
    float_steps: int
    relative: float | None
    tensors: tuple[Mapping[str, Any], ...] = field(repr=False, default=())
    oldest_runtime: str | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are all as its manifest says."""

    folder: Path
    id: str
    samples: int
    artifacts: tuple[Artifact, ...]
    files: Mapping[str, str]
    """sha256 of every file that is sent to a device."""
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One file in one runtime of the device; `error` in place of outputs where it could not."""

    file: str
    runtime: str
    version: str
    kernels: str
    outputs: Mapping[str, np.ndarray] = field(repr=False)
    tensors: Mapping[str, np.ndarray] = field(repr=False)
    latency_ms: Mapping[str, float] | None = None
    peak_bytes: int | None = None
    before_model_bytes: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Results:
    """What a device sent back, of this bundle and as it was written."""

    device: Mapping[str, Any]
    cpu: str
    """`cpu_id` of the device."""
    runs: tuple[Run, ...]


def read_bundle(folder: str | Path) -> Bundle:
    """The bundle in `folder`. Raises OptionError where anything in it is missing or not as it was written."""
    root, hint = Path(folder), "deploy again: it writes the bundle anew"
    if not root.is_dir():
        raise OptionError(f"there is no bundle {root}", hint="make deploy writes one beside its files")
    try:
        manifest, found = run_bundle.read_manifest(root)
        artifacts = tuple(_artifact(root, plain, manifest["samples"]) for plain in manifest["artifacts"])
        files = {str(name): str(facts["sha256"]) for name, facts in manifest["files"].items()}
        sums = hashlib.sha256((root / SUMS).read_bytes()).hexdigest()
        provenance = dict(manifest["provenance"])
    except run_bundle.BundleError as error:
        raise OptionError(str(error), where=str(root), hint=hint) from error
    except OSError as error:
        raise OptionError(f"the bundle cannot be read: {error.strerror}", where=str(root), hint=hint) from error
    except _DAMAGE as error:
        raise OptionError(f"the manifest is damaged: {error}", where=str(root), hint=hint) from error
    return Bundle(root, found, manifest["samples"], artifacts, files | {MANIFEST: found, SUMS: sums}, provenance)


def _artifact(root: Path, plain: Mapping[str, Any], samples: int) -> Artifact:
    expected, tolerance = plain["expected"], plain["tolerance"]
    ports = []
    for port, path in zip(plain["outputs"], expected["outputs"], strict=True):
        reference, values = _load(root / port["reference"]), _load(root / path)
        if reference.shape != values.shape or len(values) != samples:
            raise ValueError(f"golden outputs of {plain['file']} do not fit each other")
        ports.append(
            Port(port["name"], port["step"], port["scale"], port["zero_point"], port["real"], reference, values)
        )
    return Artifact(
        plain["file"],
        plain["format"],
        plain["integer"],
        tuple(ports),
        expected["runtime"],
        expected["version"],
        expected["kernels"],
        expected["cpu"],
        tolerance.get("steps"),
        tolerance.get("share", 1.0),
        tolerance.get("float_steps", 1),
        tolerance.get("relative"),
        tuple(plain["tensors"]),
        plain.get("oldest_runtime"),
    )


def _load(path: Path) -> np.ndarray:
    values = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in _NUMBERS:
        raise ValueError(f"{path.name} holds no numbers")
    return values


def read_results(path: str | Path, bundle: Bundle, *, nonce: str | None = None) -> Results:
    """What a device wrote, checked against the `bundle` it ran; with `nonce`, of that very run.

    Raises OptionError where the file is missing, truncated, edited, of another bundle or of another run.
    """
    try:
        plain = json.loads(Path(path).read_bytes(), parse_constant=_refuse)
        _check_origin(plain, bundle, nonce)
        runs = tuple(_run(entry, bundle) for entry in plain["runs"])
        return Results(dict(plain["device"]), cpu_id(plain["device"]), runs)
    except OptionError as error:
        error.where = error.where or str(path)
        raise
    except OSError as error:
        raise OptionError(f"the results cannot be read: {error.strerror}", where=str(path)) from error
    except _DAMAGE as error:
        raise OptionError(f"these are no whole results: {_short(error)}", where=str(path), hint=_AGAIN) from error


def cpu_id(device: Mapping[str, Any]) -> str:
    """What tells one kind of CPU from another, by `run_bundle.device_facts`: kernels are chosen by it."""
    cpu = {key: sorted(values) for key, values in device["cpu"].items()}
    return hashlib.sha256(json.dumps([device["machine"], cpu], sort_keys=True).encode()).hexdigest()[:16]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _short(error: Exception) -> str:
    return f"{error}"[:200] if not isinstance(error, KeyError) else f"{error} is missing"


def _check_origin(plain: dict[str, Any], bundle: Bundle, nonce: str | None) -> None:
    if plain["schema"] != run_bundle.SCHEMA:
        raise OptionError(f"results of schema {plain['schema']!r}, not {run_bundle.SCHEMA}", hint=_AGAIN)
    if plain["bundle"] != bundle.id:
        raise OptionError(
            f"results of another bundle: {str(plain['bundle'])[:12]}, not {bundle.id[:12]}",
            hint="send this bundle to the device, and run it there",
        )
    if nonce is not None and plain["nonce"] != nonce:
        raise OptionError("results of another run: they do not carry the number this one was given", hint=_AGAIN)
    if not hmac.compare_digest(str(plain["digest"]).encode(), run_bundle.digest_of(plain).encode()):
        raise OptionError("the results were changed after the device wrote them", hint=_AGAIN)


def _run(plain: Mapping[str, Any], bundle: Bundle) -> Run:
    file = str(plain["file"])
    artifact = next((known for known in bundle.artifacts if known.file == file), None)
    if artifact is None:
        raise OptionError(f"results of {file!r}, which this bundle does not have", hint=_AGAIN)
    runtime, version, kernels = (str(plain[key]) for key in ("runtime", "version", "kernels"))
    if "error" in plain:
        return Run(file, runtime, version, kernels, {}, {}, error=str(plain["error"]))
    outputs = _arrays(plain["outputs"])
    for port in artifact.outputs:
        given = outputs.get(port.name)
        if given is None or given.shape != port.expected.shape or given.dtype != port.expected.dtype:
            found = "missing" if given is None else f"{given.dtype}{list(given.shape)}"
            wanted = f"{port.expected.dtype}{list(port.expected.shape)}"
            raise OptionError(f"output {port.name!r} of {file} is {found}, not {wanted}", hint=_AGAIN)
    latency, memory = plain["latency_ms"], plain["memory"]
    return Run(
        file,
        runtime,
        version,
        kernels,
        outputs,
        _arrays(plain.get("tensors", ())),
        None if latency is None else {key: _number(latency[key]) for key in _PERCENTILES},
        _bytes(memory["peak_bytes"]),
        _bytes(memory["before_model_bytes"]),
    )


def _bytes(value: Any) -> int | None:
    return None if value is None else int(_number(value))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no amount")
    return float(value)


def _arrays(entries: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {str(entry["name"]): decode_array(entry) for entry in entries}


def decode_array(entry: Mapping[str, Any]) -> np.ndarray:
    """What `run_bundle.encode_array` was given. Raises ValueError, KeyError or TypeError where it is damaged."""
    dtype, shape = np.dtype(entry["dtype"]), [int(size) for size in entry["shape"]]
    if dtype.kind not in _NUMBERS or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype}{shape}")
    try:
        content = base64.b64decode(entry["base64"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"an array that is no base64: {error}") from error
    if len(content) != prod(shape) * dtype.itemsize or hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ValueError(f"array {entry['name']!r} is truncated or changed")
    return np.frombuffer(content, dtype).reshape(shape)
