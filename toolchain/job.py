"""From what a user names to a job that is ready to run: everything found, read and checked before anything slow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.atomic import remove_leftovers
from toolchain.errors import OptionError, OrderError, SampleError, UnsupportedError
from toolchain.formats.artifact import Format, InOut
from toolchain.graph import DType
from toolchain.knowledge import did_you_mean
from toolchain.pipeline import Pipeline
from toolchain.profiles import DeviceProfile, check_numbers, check_shapes
from toolchain.progress import SILENT, Progress
from toolchain.recipe import load_recipe, make_pipeline
from toolchain.samples import SampleSet, load_samples
from toolchain.stages.export import Export
from toolchain.stages.inputs import leaves, sample_inputs
from toolchain.stages.quantize import Quantize
from toolchain.stages.states import ExportedModel
from toolchain.targets import Target, load_target
from toolchain.zoo.resolve import LoadedModel, load_model

BATCH_ELEMENTS = 625_000
"""Input elements run through the float model at a time, 4 pictures of 224x224: enough for speed, little for memory."""

LARGEST_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a deployment names, as `toolchain.deploy` takes it. `options` are options of stages that the user gave,
    which win over those of the recipe."""

    model: Any
    target: str | Path = "arm64"
    calibration: Any = None
    out: str | Path | None = None
    recipe: str = "default"
    calibration_count: int | None = None
    judging_count: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A deployment that is ready to run."""

    target_name: str
    target: Target
    profile: DeviceProfile
    model: LoadedModel
    samples: SampleSet
    pipeline: Pipeline
    folder: Path


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
    samples = _samples(request, loaded)
    inputs = loaded.example_inputs or sample_inputs(loaded.module, samples)
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
    return Job(name, target, profile, loaded, samples, pipeline, folder)


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
        "dynamic_batch": target.dynamic_batch,
        "onnx_opset": target.onnx.opset,
        "onnx_activations": DType(target.onnx.activations),
    }


def cannot_write(folder: Path, error: OSError) -> OptionError:
    """What is said where results cannot be written."""
    hint = "free some space, or choose another folder with OUT= (--out)"
    return OptionError(f"cannot write the results: {error.strerror or error}", where=str(folder), hint=hint)


def _samples(request: Request, loaded: LoadedModel) -> SampleSet:
    source = request.calibration if request.calibration is not None else loaded.samples
    if source is None:
        raise OptionError(
            f"no samples to calibrate {loaded.name} with",
            hint="give CALIBRATION= (--calibration) a name, a TOML, an .npz, a folder or package.module:function",
        )
    counts = {"calibration_count": request.calibration_count, "judging_count": request.judging_count}
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
