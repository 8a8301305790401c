"""The main job: a model and a target in; checked files, a report and a verdict out.

Everything lands in one folder, each file whole or not at all, `report.json` last. Where a gate is missed nothing is
published and what was deployed before stays: only the report goes to `refused/`, for whoever has to find out why.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolchain.atomic import unfinished_file
from toolchain.backends import backend_findings
from toolchain.backends.measurement import DeviceFacts, judge_figures, measure_files
from toolchain.devices.bundle import Deployed, Tolerance, fitting_samples, write_bundle
from toolchain.devices.bundled_device import device_provenance
from toolchain.devices.golden import Samples
from toolchain.diagnosis.layers import Diagnosis, affordable_samples, diagnose_graph
from toolchain.engine.run import predict
from toolchain.errors import DisagreementError, OptionError
from toolchain.fidelity import Metric
from toolchain.formats.artifact import InOut
from toolchain.formats.onnx import OnnxRunner, write_onnx
from toolchain.formats.tflite import TfliteRunner, write_tflite
from toolchain.graph import Graph, fold
from toolchain.imports import import_callable
from toolchain.job import Job, Request, cannot_write, prepare
from toolchain.pipeline import StageRun
from toolchain.profiles import check_flash, check_ops, check_ram
from toolchain.progress import SILENT, Progress
from toolchain.report import FloatFile, render_html, report_facts
from toolchain.samples import SampleSet
from toolchain.stages.inputs import input_types
from toolchain.stages.states import ExportedModel, TracedModel
from toolchain.store import Store
from toolchain.targets import Target
from toolchain.validation.latency import median_latency_ms
from toolchain.validation.proof import TensorProof, prove, raise_unproved
from toolchain.validation.results import RuntimeResult, Validation
from toolchain.validation.tracks import single_samples
from toolchain.validation.validate import raise_missed, validate

BUNDLE = "bundle"


@dataclass(frozen=True)
class Deployment:
    """A finished deployment: the folder, the files in it, the report's facts, and the values behind them."""

    folder: Path
    files: tuple[Path, ...]
    facts: Mapping[str, Any] = field(repr=False)
    model: ExportedModel = field(repr=False)
    validation: Validation = field(repr=False)

    @property
    def bundle(self) -> Path:
        """The folder that goes to a device, to prove the files there (`toolchain validate`)."""
        return self.folder / BUNDLE


def deploy(
    model: Any,
    *,
    target: str | Path = "arm64",
    calibration: Any = None,
    metric: str | Metric | None = None,
    out: str | Path | None = None,
    recipe: str = "default",
    store: str | Path | None = "build/store",
    in_out: InOut | str | None = None,
    float_files: bool = False,
    dynamic_batch: bool = False,
    calibration_count: int | None = None,
    judging_count: int | None = None,
    feedback: Mapping[str, int] | None = None,
    progress: Progress = SILENT,
    on_start: Callable[[str], None] | None = None,
    on_end: Callable[[StageRun], None] | None = None,
) -> Deployment:
    """Deploy `model` (a zoo name, `package.module:function`, a `.pt2` file or an `nn.Module`) to `target`.

    `calibration` is whatever `load_samples` takes, `synthetic` or `synthetic+SAMPLES`; `recipe` a name in the target's
    file or the path of a recipe file; with `dynamic_batch` both files take any number of samples at a time; `feedback`
    says which output of a streaming model goes back to which input, `{"state": 1}`, and `calibration` holds streams
    then (`samples.stream_samples`); `store=None` keeps nothing for a later run.
    Raises a ToolchainError of the kind that says what is wrong.
    """
    judge = import_callable(metric, what="metric") if isinstance(metric, str) else metric
    request = Request(
        model=model,
        target=target,
        calibration=calibration,
        out=out,
        recipe=recipe,
        calibration_count=calibration_count,
        judging_count=judging_count,
        feedback=feedback or {},
        options=_stage_options(in_out, float_files, dynamic_batch) | {"metric": judge},
    )
    job = prepare(request, progress)
    made, runs = _run(job, store, progress, on_start, on_end)
    found = validate(made, job.samples, job.target.gates, metric=judge, progress=progress)
    proof = prove(made)
    raise_unproved(proof)
    lost = _lost(job, found, store, judge, progress)
    golden = _golden_samples(job, made)
    seen = measure_files(made.files, made.quantized, golden, job.profile, progress=progress)
    found = replace(found, notes=(*found.notes, *job.notes, *lost))
    found = judge_figures(found, seen, job.target.gates.device)
    return _publish(job, _Made(made, found, golden, seen), _facts(job, made, runs, found, proof, seen))


def _stage_options(in_out: InOut | str | None, float_files: bool, dynamic_batch: bool) -> dict[str, Any]:
    if in_out is not None and in_out not in list(InOut):
        raise OptionError(f"in_out is {in_out!r}", hint=f"choose {' or '.join(InOut)}")
    flags = {"float_files": float_files, "dynamic_batch": dynamic_batch}
    # what is not asked for is the recipe's choice
    options: dict[str, Any] = {name: True for name, wanted in flags.items() if wanted}
    return options if in_out is None else options | {"in_out": InOut(in_out)}


def _run(
    job: Job,
    store: str | Path | None,
    progress: Progress,
    on_start: Callable[[str], None] | None,
    on_end: Callable[[StageRun], None] | None,
) -> tuple[ExportedModel, list[StageRun]]:
    runs: list[StageRun] = []

    def ended(run: StageRun) -> None:
        runs.append(run)
        if isinstance(run.model, TracedModel) and run.stage == "trace":
            graph = fold(run.model.graph)
            known = backend_findings(graph, job.profile, job.target.formats)
            check_ops(graph, job.profile, job.target.device, known)
            check_ram(graph, job.profile, job.target.device)
        if on_end:
            on_end(run)

    shelf = None if store is None else Store(store)
    made = job.pipeline.run(job.model.module, store=shelf, progress=progress, on_start=on_start, on_end=ended)
    assert isinstance(made, ExportedModel)  # `prepare` has seen to it
    for name, content in made.files.items():
        check_flash(name, len(content), job.profile, job.target.device)
    return made, runs


def _lost(
    job: Job, found: Validation, store: str | Path | None, metric: Metric | None, progress: Progress
) -> tuple[str, ...]:
    """What synthetic samples lost against the real ones that were named with them: a line on the file that is furthest
    from the float model."""
    judged = [result for result in found.runtimes if result.samples == found.samples and _is_rounded(result)]
    if job.rival is None or not judged:
        return ()
    made = job.rival.run(job.model.module, store=None if store is None else Store(store), progress=progress)
    assert isinstance(made, ExportedModel)  # the same stages as the deployment's
    real = validate(made, job.samples, job.target.gates, metric=metric, progress=progress)
    rivals = [result for result in real.runtimes if result.samples == real.samples and _is_rounded(result)]
    ours, theirs = (_figures(min(results, key=lambda r: r.sqnr_db)) for results in (judged, rivals or judged))
    where = f"on {found.samples} real samples, by the same recipe"
    return (f"{where}: {ours} as calibrated on synthetic inputs, {theirs} if on real samples",)


def _is_rounded(result: RuntimeResult) -> bool:
    return result.max_error_steps is not None or result.is_reduced


def _figures(result: RuntimeResult) -> str:
    same = "" if result.same_class is None else f", same class as float {result.same_class:.1%}"
    return f"{result.sqnr_db:.1f} dB{same}{'' if result.score is None else f', score {result.score:.4g}'}"


def _facts(
    job: Job,
    made: ExportedModel,
    runs: list[StageRun],
    found: Validation,
    proof: tuple[TensorProof, ...],
    seen: DeviceFacts,
) -> dict[str, Any]:
    baseline = measure_float(fold(made.reference), job.target, job.samples) if not made.quantized.is_float else ()
    facts: dict[str, Any] = report_facts(
        target_name=job.target_name,
        target=job.target,
        profile=job.profile,
        model_name=job.model.name,
        exported=made,
        runs=runs,
        validation=found,
        baseline=baseline,
        diagnosis=_diagnosis(made, job.samples),
        proof=proof,
        seen=seen,
    )
    return facts


def _diagnosis(made: ExportedModel, samples: SampleSet) -> Diagnosis | None:
    """On a few samples, since it must cost little beside the rest; None where nothing is quantized, or even that costs
    much."""
    count = affordable_samples(made.quantized) if made.params else 0
    if not count:
        return None
    checked = samples.checked(input_types(made.graph)).with_batch_size(count)
    return diagnose_graph(made.quantized, (batch.inputs for batch in checked.judging()), samples=count)


def measure_float(graph: Graph, target: Target, samples: SampleSet) -> tuple[FloatFile, ...]:
    """Bytes and latency of the float counterparts of the target's files, which are not kept."""
    inputs = samples.checked(input_types(graph)).first_inputs()
    found = []
    for kind in target.formats:
        if kind == "onnx":
            content = write_onnx(graph, opset=target.onnx.opset)
            runner: OnnxRunner | TfliteRunner = OnnxRunner(content, graph)
        else:
            content = write_tflite(graph)
            runner = TfliteRunner(content)
        found.append(FloatFile(f"model.{kind}", runner.name, len(content), median_latency_ms(runner, inputs)))
    return tuple(found)


@dataclass(frozen=True)
class _Made:
    """What is to be published."""

    model: ExportedModel
    found: Validation
    golden: Samples
    seen: DeviceFacts

    @property
    def files(self) -> dict[str, bytes]:
        return {**self.model.files, **self.seen.files}

    @property
    def arena_bytes(self) -> dict[str, int]:
        """The memory that tflite-micro needs for each file, where it is installed."""
        key = "smallest_arena_bytes"
        return {found.file: int(found.by_key[key]) for found in self.seen.measured if key in found.by_key}


def _publish(job: Job, made: _Made, facts: dict[str, Any]) -> Deployment:
    report = {
        "report.html": render_html(facts).encode(),
        "report.json": (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode(),
    }
    refused = job.folder / "refused"
    try:
        raise_missed(made.found)
    except DisagreementError as missed:
        _write(refused, report)
        missed.where = str(refused / "report.html")
        raise
    stale = _published(job.folder) - set(made.files)
    files = _write(job.folder, made.files)
    _write_bundle(job, made, facts["versions"])
    paths = (*files, *_write(job.folder, report))
    _remove(refused, *(job.folder / name for name in stale))
    return Deployment(job.folder, paths, facts, made.model, made.found)


def _write_bundle(job: Job, made: _Made, versions: Mapping[str, Any]) -> None:
    gates, model = job.target.gates, made.model
    provenance = {
        "model": job.model.name,
        "digest": model.digest,
        "target": job.target_name,
        "samples": job.samples.name,
        "recipe": [{"stage": record.stage, **record.options} for record in model.history],
        "versions": dict(versions),
        **device_provenance(job.target, job.profile),
    }
    tolerance = Tolerance(gates.output_steps, gates.output_share, gates.float_error)
    arenas = made.arena_bytes if job.profile.kind == "mcu" else None
    deployed = Deployed(model.files, model.quantized, made.golden, tolerance, provenance, arenas)
    try:
        write_bundle(job.folder / BUNDLE, deployed)
    except OSError as error:
        raise cannot_write(job.folder / BUNDLE, error) from error


def _golden_samples(job: Job, made: ExportedModel) -> Samples:
    """The first judging samples, and what the reference makes of them."""
    singles = (one for batch in job.samples.checked(input_types(made.graph)).judging() for one in single_samples(batch))
    inputs, references = [], []
    for given in singles:
        outputs = predict(made.reference, [given])
        inputs.append(given)
        references.append(tuple(outputs))
        if len(inputs) >= fitting_samples(sum(array.nbytes for array in (*given, *outputs))):
            break
    return Samples(tuple(inputs), tuple(references))


def _published(folder: Path) -> set[str]:
    """Names of the model files that the report in `folder` tells of."""
    try:
        facts = json.loads((folder / "report.json").read_text())
        seen = (file for row in facts.get("backends", {}).get("measured", ()) for file in row["files"])
        return {Path(str(file["name"])).name for file in (*facts["files"], *seen)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _remove(folder: Path, *files: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for path in files:
        path.unlink(missing_ok=True)


def _write(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Each file whole or not at all, in their order."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with unfinished_file(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return tuple(folder / name for name in files)
