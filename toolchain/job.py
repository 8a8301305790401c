"""From what a user names to a job that is ready to run: everything found, read and checked before anything slow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolchain.atomic import remove_leftovers
from toolchain.errors import OptionError, OrderError, SampleError, UnsupportedError
from toolchain.formats.artifact import Format, InOut, SparseWeights
from toolchain.graph import DType, fold
from toolchain.knowledge import did_you_mean
from toolchain.ladder.goal import Goal
from toolchain.pipeline import Pipeline
from toolchain.profiles import DeviceProfile, check_numbers, check_ops, check_shapes
from toolchain.progress import SILENT, Progress
from toolchain.quantization import NumberFormat
from toolchain.recipe import load_recipe, make_pipeline
from toolchain.samples import SampleSet, load_samples
from toolchain.stages.export import Export
from toolchain.stages.inputs import leaves, sample_inputs
from toolchain.stages.quantize import Quantize
from toolchain.stages.states import ExportedModel
from toolchain.stages.streams import traced_streams
from toolchain.stages.synthetic import ONLY_SYNTHETIC, example_set, read_calibration, synthetic_samples
from toolchain.stages.trace import Trace
from toolchain.targets import Gates, Target, load_target
from toolchain.zoo.resolve import LoadedModel, load_model

BATCH_ELEMENTS = 625_000
"""Input elements run through the float model at a time, 4 pictures of 224x224: enough for speed, little for memory."""

LARGEST_BATCH = 64

_SCORE_MARGIN = 0.75


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a deployment names, as `toolchain.deploy` takes it. `options` are options of stages that the user gave,
    which win over those of the recipe. `feedback` makes streams of the samples (`samples.streams`): which output goes
    back to which input, by its name."""

    model: Any
    target: str | Path = "arm64"
    calibration: Any = None
    out: str | Path | None = None
    recipe: str = "default"
    calibration_count: int | None = None
    judging_count: int | None = None
    feedback: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A deployment that is ready to run. `notes` are for its report; `rival` is what it is compared with: the same
    stages, calibrated on real samples."""

    target_name: str
    target: Target
    profile: DeviceProfile
    model: LoadedModel
    samples: SampleSet
    pipeline: Pipeline
    folder: Path
    notes: tuple[str, ...] = ()
    rival: Pipeline | None = None


def prepare(request: Request, progress: Progress = SILENT) -> Job:
    """Find, read and check everything a deployment names. Raises a ToolchainError of the kind that says what is
    wrong."""
    target, profile = load_target(request.target)
    name = Path(request.target).stem
    tables, where = _recipe(target, request.recipe, name)
    _check_float(request, target, profile)
    loaded = load_model(request.model, progress=progress)
    default = Path("build") / name / loaded.name
    folder = _writable(default if request.out is None else Path(request.out))
    is_synthetic, source = read_calibration(request.calibration)
    if request.feedback and is_synthetic:
        raise OptionError("what is fed back cannot be made up", hint="leave out the feedback, or give streams")
    real = None if is_synthetic and source is None else _samples(request, loaded, source)
    inputs = loaded.example_inputs or (sample_inputs(loaded.module, real) if real is not None else None)
    if inputs is None:
        raise OptionError(
            f"synthetic samples are shaped as example inputs, and {loaded.name} brings none",
            hint="return (module, example inputs) from your function, or name samples: CALIBRATION=synthetic+SAMPLES",
        )
    samples = example_set(inputs) if real is None else real
    arrays = [array for array in leaves(inputs) if hasattr(array, "shape")]
    if any(len(array) != 1 for array in arrays):
        raise OptionError(
            f"example inputs of shape {[tuple(array.shape) for array in arrays]} hold more than one sample",
            where=f"model {loaded.name}",
            hint="give inputs with a batch of 1: deployed files take one sample at a time",
        )
    given = stage_options(target, profile) | {"samples": samples, "example_inputs": inputs}
    pipeline = make_pipeline(tables, given, where=where, overriding=request.options)
    if pipeline.stages[-1].gives is not ExportedModel:
        raise OrderError("the recipe does not end with export", where=where, hint='add a table with stage = "export"')
    for stage in pipeline.stages:
        if isinstance(stage, Quantize):
            check_numbers(stage.numbers, profile, target.device)
        if isinstance(stage, Export):
            check_shapes(stage.dynamic_batch, profile, target.device)
    for unused, others in target.recipes.items():
        make_pipeline(others, given, where=f"target {name}: recipes.{unused}") if others else None
    job = Job(name, target, profile, loaded, samples, pipeline, folder)
    return _with_synthetic(job, request, real, inputs, progress) if is_synthetic else job


def _with_synthetic(job: Job, request: Request, real: SampleSet | None, inputs: Any, progress: Progress) -> Job:
    """The job calibrated on what its model makes up, and judged on that too where there are no real samples."""
    graph = Trace(example_inputs=inputs)(job.model.module).graph
    check_ops(fold(graph), job.profile, job.target.device)
    judging = request.judging_count if real is None else real
    found, made = synthetic_samples(
        graph, inputs, calibration_count=request.calibration_count, judging=judging, progress=progress
    )
    samples = sized_batches(found)
    changed: dict[str, Any] = {"samples": samples}
    stages = (replace(s, **changed) if hasattr(s, "samples") else s for s in job.pipeline.stages)
    part = "" if real is not None else f"{found.calibration_count} of "
    notes = (f"calibrated on {part}{made}", *((ONLY_SYNTHETIC,) if real is None else ()))
    rival = None if real is None else job.pipeline
    return replace(job, samples=samples, pipeline=Pipeline(tuple(stages)), notes=notes, rival=rival)


def sized_batches(samples: SampleSet) -> SampleSet:
    """The same samples in batches that suit their size."""
    elements = sum(array.size for array in samples.first_inputs())
    return samples.with_batch_size(max(1, min(LARGEST_BATCH, BATCH_ELEMENTS // max(elements, 1))))


def stage_options(target: Target, profile: DeviceProfile) -> dict[str, Any]:
    """The options of stages that follow from a target and its device."""
    return {
        "scheme": profile.scheme,
        "unroll_recurrent": not profile.execution.float_ops,
        "round_to": profile.kernels.simd_channels,
        "formats": tuple(Format(kind) for kind in target.formats),
        "in_out": InOut(target.in_out),
        "dynamic_batch": target.dynamic_batch,
        "sparse": SparseWeights(target.sparse) if profile.kernels.sparse else SparseWeights.NEVER,
        "goal": _goal(target.gates),
        "alternatives": alternatives(profile),
        "onnx_opset": target.onnx.opset,
        "onnx_activations": DType(target.onnx.activations),
        "onnx_qdq_only": profile.qnn is not None,
    }


def _goal(gates: Gates) -> Goal:
    """What the quantization ladder climbs for: the gates, as far as they bound accuracy. It sees other samples than
    those that the gates are judged on, and so wants a little more."""
    drop = None if gates.accuracy_drop is None else _SCORE_MARGIN * gates.accuracy_drop
    return Goal(sqnr_db=gates.sqnr_db, same_class=gates.same_class, score_drop=drop)


def alternatives(profile: DeviceProfile) -> tuple[NumberFormat, ...]:
    """Number formats that the device offers where w8a8 loses too much: of single nodes, or with float activations."""
    floats = (NumberFormat.FLOAT32,) if profile.execution.float_ops else ()
    return (*floats, *(wanted for wanted in profile.quantization.formats if wanted is not NumberFormat.W8A8))


def cannot_write(folder: Path, error: OSError) -> OptionError:
    """What is said where results cannot be written."""
    hint = "free some space, or choose another folder with OUT= (--out)"
    return OptionError(f"cannot write the results: {error.strerror or error}", where=str(folder), hint=hint)


def _samples(request: Request, loaded: LoadedModel, source: Any) -> SampleSet:
    source = source if source is not None else loaded.samples
    if source is None:
        raise OptionError(
            f"no samples to calibrate {loaded.name} with",
            hint="give CALIBRATION= (--calibration) a name, a TOML, an .npz, a folder or package.module:function",
        )
    counts = {"calibration_count": request.calibration_count, "judging_count": request.judging_count}
    if request.feedback:
        return sized_batches(traced_streams(loaded.module, source, request.feedback, **counts))
    samples = load_samples(source, **counts)  # type: ignore[arg-type]
    if not samples.judging_count:
        raise SampleError(
            "no samples are left to judge with",
            where=f"sample set {samples.name!r}",
            hint="give more samples, or fewer to calibrate with (SAMPLES=, --samples)",
        )
    return sized_batches(samples)


def _check_float(request: Request, target: Target, profile: DeviceProfile) -> None:
    wanted = request.options.get("in_out", target.in_out)
    if not profile.execution.float_ops and (wanted == InOut.FLOAT or request.options.get("float_files")):
        raise UnsupportedError(
            f"{target.device} computes nothing in float: no float in- and outputs, no float files",
            hint="leave out IN_OUT=float and FLOAT=1, or choose another target",
        )


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
        raise cannot_write(folder, error) from error
