"""One stage alone, from a saved model to a saved model: what `toolchain stage` runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolchain.atomic import unfinished_folder
from toolchain.errors import OptionError
from toolchain.job import sized_batches, stage_options
from toolchain.progress import Progress
from toolchain.recipe import make_stage
from toolchain.samples import load_samples
from toolchain.stages.inputs import sample_inputs
from toolchain.stages.states import ExportedModel, load
from toolchain.targets import load_target
from toolchain.zoo.resolve import load_model


def run_stage(
    name: str,
    source: str,
    out: Path,
    target: str,
    calibration: str | None,
    options: Mapping[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Run stage `name` on the model saved in `source` (trace: on a torch model) and save the result in `out`.

    Returns what the stage found. Raises OptionError where `out` holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OptionError("the result needs a new or empty folder", where=str(out))
    given = stage_options(*load_target(target))
    model: Any = None
    if name == "trace":
        loaded = load_model(source, progress=progress)
        calibration, model = calibration or loaded.samples, loaded.module
        inputs: Any = loaded.example_inputs
        if inputs is None and calibration is not None:
            inputs = sample_inputs(model, load_samples(calibration))
        given["example_inputs"] = inputs
    if calibration is not None:
        given["samples"] = sized_batches(load_samples(calibration))
    stage = make_stage({"stage": name, **options}, given, where="stage")
    if model is None:
        model = load(Path(source))
    unfinished = out.parent / f".{out.name}.checkpoints"
    made = stage(model, progress=progress, checkpoints=unfinished)
    _save(made, out)
    shutil.rmtree(unfinished, ignore_errors=True)
    return dict(made.history[-1].facts)


def _save(made: Any, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(out) as temporary:
        made.save(temporary)
        if isinstance(made, ExportedModel):
            made.write(temporary)
