"""Why a quantized model differs from the float one: the pipeline up to its files, then a diagnosis layer by layer.

The samples are of the part kept apart from calibration, as the gates' are. `diagnosis.json` and `diagnosis.html` land
in the folder of the deployment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.atomic import unfinished_file
from toolchain.diagnosis.layers import SAMPLES, Diagnosis, diagnose_graph
from toolchain.errors import OptionError
from toolchain.graph import fold
from toolchain.job import Job, Request, cannot_write, prepare
from toolchain.pipeline import Pipeline, StageRun
from toolchain.profiles import check_ops
from toolchain.progress import SILENT, Progress
from toolchain.report.diagnosis import diagnosis_facts
from toolchain.report.facts import SCHEMA, versions
from toolchain.report.html import render_diagnosis
from toolchain.stages.export import Export
from toolchain.stages.inputs import input_types
from toolchain.stages.states import QuantizedModel, TracedModel
from toolchain.store import Store


@dataclass(frozen=True)
class ModelDiagnosis:
    """A finished diagnosis: the folder, the files in it, the facts, and the values behind them."""

    folder: Path
    files: tuple[Path, ...]
    facts: Mapping[str, Any] = field(repr=False)
    diagnosis: Diagnosis = field(repr=False)


def diagnose(
    model: Any,
    *,
    target: str | Path = "arm64",
    calibration: Any = None,
    out: str | Path | None = None,
    recipe: str = "default",
    store: str | Path | None = "build/store",
    calibration_count: int | None = None,
    feedback: Mapping[str, int] | None = None,
    samples: int = SAMPLES,
    progress: Progress = SILENT,
    on_start: Callable[[str], None] | None = None,
    on_end: Callable[[StageRun], None] | None = None,
) -> ModelDiagnosis:
    """Quantize `model` for `target`, as `deploy` does, and diagnose it on `samples` samples.

    Everything but `samples` is as `toolchain.deploy` takes it. Raises OptionError where the recipe quantizes nothing.
    """
    request = Request(
        model=model,
        target=target,
        calibration=calibration,
        out=out,
        recipe=recipe,
        calibration_count=calibration_count,
        feedback=feedback or {},
    )
    job = prepare(request, progress)
    made = _quantized(job, recipe, store, progress, on_start, on_end)
    found = _diagnosed(job, made, samples, progress)
    facts = {
        "schema": SCHEMA,
        "model": {"name": job.model.name},
        "target": {"name": job.target_name},
        "recipe": Path(recipe).stem,
        "versions": versions(),
        "diagnosis": diagnosis_facts(found, made.graph),
    }
    return ModelDiagnosis(job.folder, _write(job.folder, facts), facts, found)


def _diagnosed(job: Job, made: QuantizedModel, samples: int, progress: Progress) -> Diagnosis:
    checked = job.samples.checked(input_types(made.graph))
    checked = checked.with_batch_size(min(checked.batch_size, samples))
    batches = (batch.inputs for batch in checked.judging())
    tracked = progress.track(batches, description="diagnose", total=-(-samples // checked.batch_size))
    return diagnose_graph(made.quantized, tracked, samples=samples)


def _quantized(
    job: Job,
    recipe: str,
    store: str | Path | None,
    progress: Progress,
    on_start: Callable[[str], None] | None,
    on_end: Callable[[StageRun], None] | None,
) -> QuantizedModel:
    """What the recipe writes files of."""

    def ended(run: StageRun) -> None:
        if isinstance(run.model, TracedModel) and run.stage == "trace":
            check_ops(fold(run.model.graph), job.profile, job.target.device)
        if on_end:
            on_end(run)

    stages = tuple(stage for stage in job.pipeline.stages if not isinstance(stage, Export))
    shelf = None if store is None else Store(store)
    row = Pipeline(stages)
    made = row.run(job.model.module, store=shelf, progress=progress, on_start=on_start, on_end=ended)
    if not isinstance(made, QuantizedModel) or not made.params:
        hint = "choose a recipe that quantizes to integers (--recipe)"
        raise OptionError(f"recipe {recipe!r} quantizes nothing, there is nothing to diagnose", hint=hint)
    return made


def _write(folder: Path, facts: Mapping[str, Any]) -> tuple[Path, ...]:
    files = {
        "diagnosis.html": render_diagnosis(facts),
        "diagnosis.json": json.dumps(facts, indent=2, allow_nan=False) + "\n",
    }
    try:
        for name, content in files.items():
            with unfinished_file(folder / name) as temporary:
                temporary.write_text(content)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return tuple(folder / name for name in files)
