"""The main job: a model and a target in; checked files, a report and a verdict out.

Everything lands under one folder, each file written under a temporary name and renamed. Where a gate is missed
nothing is published: only the report goes to `refused/`, for whoever has to find out why.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.atomic import remove_leftovers, unfinished_file
from toolchain.errors import DisagreementError, OptionError
from toolchain.formats.artifact import Format, InOut
from toolchain.formats.onnx import OnnxRunner, write_onnx
from toolchain.formats.tflite import TfliteRunner, write_tflite
from toolchain.graph import DType, Graph, fold
from toolchain.imports import import_callable
from toolchain.knowledge import did_you_mean
from toolchain.pipeline import Pipeline, StageRun
from toolchain.profiles import DeviceProfile, check_ops
from toolchain.progress import SILENT, Progress
from toolchain.recipe import load_recipe, make_pipeline
from toolchain.report import FloatFile, render_html, report_facts
from toolchain.samples import SampleSet, load_samples
from toolchain.stages.states import ExportedModel, TracedModel
from toolchain.store import Store
from toolchain.targets import Target, load_target
from toolchain.validation.latency import median_latency_ms
from toolchain.validation.results import Validation
from toolchain.validation.validate import Metric, raise_missed, validate
from toolchain.zoo.resolve import LoadedModel, load_model

BATCH_ELEMENTS = 1_250_000
"""Input elements run through the float model at a time, 8 pictures of 224x224: enough for speed, little for memory."""

LARGEST_BATCH = 64


@dataclass(frozen=True)
class Deployment:
    """A finished deployment: the folder, the files in it, the report's facts, and the values behind them."""

    folder: Path
    files: tuple[Path, ...]
    facts: Mapping[str, Any] = field(repr=False)
    model: ExportedModel = field(repr=False)
    validation: Validation = field(repr=False)


@dataclass(frozen=True)
class Job:
    """A deployment that is ready to run: everything named has been found, read and checked."""

    target_name: str
    target: Target
    profile: DeviceProfile
    model: LoadedModel
    samples: SampleSet
    pipeline: Pipeline
    folder: Path


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
    calibration_count: int | None = None,
    judging_count: int | None = None,
    progress: Progress = SILENT,
    on_start: Callable[[str], None] | None = None,
    on_end: Callable[[StageRun], None] | None = None,
) -> Deployment:
    """Deploy `model` (a zoo name, `package.module:function`, a `.pt2` file or an `nn.Module`) to `target`.

    `calibration` is whatever `load_samples` takes; `recipe` a name in the target's file or the path of a recipe file;
    `store=None` keeps nothing for a later run. Raises a ToolchainError of the kind that says what is wrong.
    """
    judge = import_callable(metric, what="metric") if isinstance(metric, str) else metric
    options = {"float_files": float_files} | ({} if in_out is None else {"in_out": InOut(in_out)})
    counts = (calibration_count, judging_count)
    job = prepare(model, target, calibration, out, recipe, counts, options, progress)

    def ended(run: StageRun) -> None:
        runs.append(run)
        if isinstance(run.model, TracedModel):
            check_ops(fold(run.model.graph), job.profile, job.target.device)
        if on_end:
            on_end(run)

    runs: list[StageRun] = []
    shelf = None if store is None else Store(store)
    made = job.pipeline.run(job.model.module, store=shelf, progress=progress, on_start=on_start, on_end=ended)
    if not isinstance(made, ExportedModel):
        raise OptionError("the recipe does not end with export", hint='add a [[recipe]] table with stage = "export"')
    found = validate(made, job.samples, job.target.gates, metric=judge, progress=progress)
    facts = _facts(job, made, runs, found)
    return _publish(job, made, found, facts)


def prepare(
    model: Any,
    target: str | Path,
    calibration: Any,
    out: str | Path | None,
    recipe: str,
    counts: tuple[int | None, int | None],
    options: Mapping[str, Any],
    progress: Progress = SILENT,
) -> Job:
    """Find, read and check everything a deployment names, before anything slow runs."""
    spec, profile = load_target(target)
    name = Path(target).stem
    tables, where = _recipe(spec, recipe, name)
    loaded = load_model(model, progress=progress)
    folder = _writable(Path(out) if out is not None else Path("build") / name / loaded.name)
    source = calibration if calibration is not None else loaded.samples
    if source is None:
        raise OptionError(
            f"no samples to calibrate {loaded.name} with",
            hint="give CALIBRATION= (--calibration) a name, a TOML, an .npz, a folder or package.module:function",
        )
    calibration_count, judging_count = counts
    named = load_samples(source, calibration_count=calibration_count, judging_count=judging_count)
    samples = sized_batches(named)
    inputs = loaded.example_inputs or samples.first_inputs()
    given = stage_options(spec, profile) | {"samples": samples, "example_inputs": inputs} | dict(options)
    return Job(name, spec, profile, loaded, samples, make_pipeline(tables, given, where=where), folder)


def sized_batches(samples: SampleSet) -> SampleSet:
    """The same samples in batches that suit their size."""
    elements = sum(array.size for array in samples.first_inputs())
    return samples.with_batch_size(max(1, min(LARGEST_BATCH, BATCH_ELEMENTS // max(elements, 1))))


def stage_options(target: Target, profile: DeviceProfile) -> dict[str, Any]:
    """The options of stages that follow from a target and its device."""
    return {
        "scheme": profile.scheme,
        "round_to": profile.compute.channel_multiple,
        "formats": tuple(Format(kind) for kind in target.formats),
        "in_out": InOut(target.in_out),
        "onnx_opset": target.onnx.opset,
        "onnx_activations": DType(target.onnx.activations),
    }


def _recipe(target: Target, recipe: str, target_name: str) -> tuple[tuple[dict[str, Any], ...], str]:
    if recipe in target.recipes:
        return target.recipes[recipe], f"target {target_name}: recipes.{recipe}"
    if recipe.endswith(".toml"):
        return load_recipe(recipe), recipe
    known = ", ".join(target.recipes)
    raise OptionError(
        f"target {target_name} has no recipe {recipe!r}",
        hint=f"{did_you_mean(recipe, target.recipes)}recipes: {known}; or the path of a recipe TOML",
    )


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> OptionError:
    hint = "free some space, or choose another folder with OUT= (--out)"
    return OptionError(f"cannot write the results: {error.strerror or error}", where=str(folder), hint=hint)


def _facts(job: Job, made: ExportedModel, runs: list[StageRun], found: Validation) -> dict[str, Any]:
    baseline = measure_float(fold(made.reference), job.target, job.samples) if made.params else ()
    facts: dict[str, Any] = report_facts(
        target_name=job.target_name,
        target=job.target,
        profile=job.profile,
        model_name=job.model.name,
        exported=made,
        runs=runs,
        validation=found,
        baseline=baseline,
    )
    return facts


def measure_float(graph: Graph, target: Target, samples: SampleSet) -> tuple[FloatFile, ...]:
    """Bytes and latency of the float counterparts of the target's files, which are not kept."""
    inputs = samples.first_inputs()
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


def _publish(job: Job, made: ExportedModel, found: Validation, facts: dict[str, Any]) -> Deployment:
    report = {
        "report.json": (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode(),
        "report.html": render_html(facts).encode(),
    }
    try:
        raise_missed(found)
    except DisagreementError as missed:
        _write(job.folder / "refused", report)
        missed.where = str(job.folder / "refused" / "report.html")
        raise
    paths = _write(job.folder, {**made.files, **report})
    return Deployment(job.folder, paths, facts, made, found)


def _write(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Each file whole or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with unfinished_file(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return tuple(folder / name for name in files)
