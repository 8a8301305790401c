"""Everything measured on the way to a deployed model, as plain JSON values: what report.json holds.

Terminal and HTML are made of these facts alone, so that a stored report.json can be rendered again. Units are
suffixes (`_bytes`, `_ms`, `_db`, `_s`); shares lie within 0 and 1; what was not measured is null.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from toolchain.graph import Graph
from toolchain.pipeline import StageRun
from toolchain.profiles import DeviceProfile
from toolchain.report.backends import backend_facts
from toolchain.report.diagnosis import diagnosis_facts
from toolchain.report.layers import float_cost, graph_cost, layer_rows
from toolchain.report.plain import finite, ratio, to_plain
from toolchain.stages.states import ExportedModel
from toolchain.targets import Target
from toolchain.validation.results import Agreement, RuntimeResult, Validation

if TYPE_CHECKING:
    from toolchain.backends.measurement import DeviceFacts
    from toolchain.diagnosis.layers import Diagnosis
    from toolchain.validation.proof import TensorProof

SCHEMA = 1
"""Version of the facts' form: raised whenever a key changes its meaning or goes away."""

_DISTRIBUTIONS = {
    "toolchain": "edge-toolchain",
    "torch": "torch",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai-edge-litert",
    "numpy": "numpy",
}


@dataclass(frozen=True)
class FloatFile:
    """A float counterpart as measured in one runtime; told from the others by suffix and runtime."""

    file: str
    runtime: str
    bytes: int
    latency_ms: float


def report_facts(
    *,
    target_name: str,
    target: Target,
    profile: DeviceProfile,
    model_name: str,
    exported: ExportedModel,
    runs: Sequence[StageRun],
    validation: Validation,
    baseline: Sequence[FloatFile],
    diagnosis: Diagnosis | None = None,
    proof: Sequence[TensorProof] | None = None,
    seen: DeviceFacts | None = None,
) -> dict[str, Any]:
    """The facts of one deployment. `baseline` may be empty; float bytes and speed-ups are null then. Without a `proof`
    there is no price list either, without what was `seen` no section of back ends."""
    before, after = float_cost(exported.reference), graph_cost(exported.graph, exported.params)
    cost, files = {"float": before, "deployed": after}, _files(exported, baseline)
    runtimes = [_runtime(result, baseline) for result in validation.runtimes]
    return {
        "schema": SCHEMA,
        "model": _model(model_name, exported),
        "target": _target(target_name, target),
        "device": _device(target.device, profile, _used_savings(exported, before, after)),
        "versions": versions(),
        "measured_on": _machine(),
        "stages": [_stage(run) for run in runs],
        "left_out": _left_out(target, runs),
        "files": files,
        "cost": cost,
        "samples": validation.samples,
        "score_name": validation.score_name,
        "float_score": finite(validation.reference_score),
        "runtimes": runtimes,
        "notes": [*validation.notes, *([validation.origin] if validation.origin else [])],
        "agreements": [_agreement(pair) for pair in validation.agreements],
        "output_steps": target.gates.output_steps,
        "gates": [to_plain(verdict) for verdict in validation.verdicts],
        "missed": list(validation.missed),
        "layers": layer_rows(exported, {tensor.name: tensor for tensor in validation.tensors}),
        "diagnosis": None if diagnosis is None else diagnosis_facts(diagnosis, exported.graph),
        "proof": None if proof is None else [row.to_plain() for row in proof],
        "backends": {} if seen is None else backend_facts(seen),
        "prices": None if proof is None else _prices(exported, profile, proof, cost, files, runtimes),
    }


def _model(name: str, exported: ExportedModel) -> dict[str, Any]:
    graph = exported.graph
    return {
        "name": name,
        "inputs": [_tensor(graph, tensor) for tensor in graph.input_names],
        "outputs": [_tensor(graph, tensor) for tensor in graph.outputs],
        "nodes": len(graph.nodes),
    }


def _tensor(graph: Graph, name: str) -> dict[str, Any]:
    return {"name": name, "dtype": graph.types[name].dtype.value, "shape": list(graph.types[name].shape)}


def _target(name: str, target: Target) -> dict[str, Any]:
    return {
        "name": PurePosixPath(name).name,
        "description": target.description,
        "formats": list(target.formats),
        "in_out": target.in_out,
    }


def _device(name: str, profile: DeviceProfile, used: Mapping[str, bool]) -> dict[str, Any]:
    return {
        "name": PurePosixPath(name).name,
        "description": profile.description,
        "kind": profile.kind,
        "source": profile.source,
        "ram_bytes": None if profile.memory.ram_kib is None else profile.memory.ram_kib * 1024,
        "flash_bytes": None if profile.memory.flash_kib is None else profile.memory.flash_kib * 1024,
        "savings": [
            {"saving": kind, "pays": [p.value for p in saving.pays], "why": saving.why, "used": used[kind]}
            for kind, saving in profile.savings.items()
        ],
    }


def _used_savings(exported: ExportedModel, before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, bool]:
    return {
        "int8": bool(exported.params),
        "structured": after["macs"] < before["macs"],
        "unstructured": bool(exported.structure.masks),
        "codebook": bool(exported.structure.codebooks),
    }


def versions() -> dict[str, str | None]:
    """What computed the facts: the toolchain and the libraries it stands on; None for what is not installed."""
    found: dict[str, str | None] = {}
    for name, distribution in _DISTRIBUTIONS.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _machine() -> dict[str, Any]:
    """Where latencies were taken: without it a millisecond says nothing."""
    return {
        "architecture": platform.machine(),
        "system": platform.system(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }


def _stage(run: StageRun) -> dict[str, Any]:
    record = run.model.history[-1]
    return {
        "name": run.stage,
        "seconds": finite(run.seconds),
        "resumed": run.resumed,
        "options": to_plain(record.options),
        "facts": to_plain(record.facts),
        "part_seconds": to_plain(record.seconds),
    }


def _left_out(target: Target, runs: Sequence[StageRun]) -> list[dict[str, str]]:
    ran = {run.stage for run in runs}
    return [{"stage": stage, "why": why} for stage, why in target.left_out.items() if stage not in ran]


def _prices(
    exported: ExportedModel, profile: DeviceProfile, proof: Sequence[TensorProof], *told: Any
) -> dict[str, Any]:
    from toolchain.report.prices import price_list  # imports the runtimes, which takes a while

    return price_list(exported, profile, proof, *told)


def _files(exported: ExportedModel, baseline: Sequence[FloatFile]) -> list[dict[str, Any]]:
    return [_file(name, content, exported, baseline) for name, content in exported.files.items()]


def _file(name: str, content: bytes, exported: ExportedModel, baseline: Sequence[FloatFile]) -> dict[str, Any]:
    is_float = exported.quantized.is_float or ".float." in name
    suffix = PurePosixPath(name).suffix
    float_bytes = None if is_float else next((f.bytes for f in baseline if _suffix(f) == suffix), None)
    return {
        "name": name,
        "format": suffix.lstrip("."),
        "is_float": is_float,
        "bytes": len(content),
        "float_bytes": float_bytes,
        "ratio": ratio(float_bytes, len(content)),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _runtime(result: RuntimeResult, baseline: Sequence[FloatFile]) -> dict[str, Any]:
    is_float = result.max_error_steps is None and not result.is_reduced
    same = [f for f in baseline if _suffix(f) == PurePosixPath(result.file).suffix and f.runtime == result.runtime]
    float_ms = finite(same[0].latency_ms) if same and not is_float else None
    numbers = ("sqnr_db", "cosine", "max_error_steps", "relative_error", "same_class", "score", "latency_ms")
    return {
        "file": result.file,
        "runtime": result.runtime,
        "is_float": is_float,
        "samples": result.samples,
        **{name: finite(getattr(result, name)) for name in numbers},
        "float_latency_ms": float_ms,
        "speed_up": ratio(float_ms, result.latency_ms),
    }


def _agreement(pair: Agreement) -> dict[str, Any]:
    return {
        "first": pair.first,
        "second": pair.second,
        "samples": pair.samples,
        "max_steps": pair.max_steps,
        "share_within": finite(pair.share_within),
        "same_class": finite(pair.same_class),
    }


def _suffix(file: FloatFile) -> str:
    return PurePosixPath(file.file).suffix
