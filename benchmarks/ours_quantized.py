"""The one place that asks the toolchain for a quantized pair of files, in one of several ways."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.formats.artifact import InOut
from toolchain.graph import WEIGHTED
from toolchain.job import Request, prepare
from toolchain.ladder.goal import Goal
from toolchain.stages.states import ExportedModel


@dataclass(frozen=True)
class OurFiles:
    """Both files by suffix, the integer specification behind them, what the stages say, and seconds."""

    files: Mapping[str, Path]
    model: ExportedModel
    seconds: float

    @property
    def ladder(self) -> list[dict[str, Any]]:
        """The rungs as the quantize stage tells them; none where no ladder was climbed."""
        found = [entry.facts.get("ladder", []) for entry in self.model.history if entry.stage == "quantize"]
        return list(found[-1]) if found else []

    @property
    def last_rung(self) -> str:
        """The highest rung that was kept."""
        return next((str(rung["rung"]) for rung in reversed(self.ladder) if rung["kept"]), "-")

    @property
    def float_nodes(self) -> int:
        return len(self.model.quantized.float_nodes)

    @property
    def activation_types(self) -> set[str]:
        """Integer types of all activations; "float" is one of them where a node computes in float."""
        quantized = self.model.quantized
        constants = quantized.graph.constants
        found = {str(params.dtype) for name, params in quantized.params.items() if name not in constants}
        return found | ({"float"} if quantized.float_nodes else set())

    @property
    def weight_bits(self) -> int:
        """Bits that the widest weight's integers need; 32 where a weight stayed in float."""
        quantized = self.model.quantized
        weights = {node.inputs[1] for node in quantized.graph.nodes if node.op in WEIGHTED}
        if not weights <= set(quantized.integers):
            return 32
        return max(int(np.abs(quantized.integers[name].astype(int)).max()).bit_length() + 1 for name in weights)

    def keeps(self, weight_bits: int) -> bool:
        """Whether all of it is in 8-bit activations and weights of so many bits, as a row that says so must be."""
        return self.activation_types == {"int8"} and self.weight_bits <= weight_bits


def make_files(
    model: Any,
    samples: Any,
    folder: Path,
    *,
    recipe: str = "default",
    target: str = "arm64",
    metric: Any = None,
    options: Mapping[str, Any] | None = None,
    in_out: str = "integer",
) -> OurFiles:
    """Both files of `model`, made as `deploy` does, but kept whatever the gates say.

    `options` are those of the stages, over the recipe's; `metric` is what `auto` judges a rung by.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    given = {"in_out": InOut(in_out), "metric": metric, **(options or {})}
    with tempfile.TemporaryDirectory() as out:
        request = Request(model=model, target=target, calibration=samples, out=out, recipe=recipe, options=given)
        job = prepare(request)
        started = time.perf_counter()
        made = job.pipeline.run(job.model.module)
    assert isinstance(made, ExportedModel)
    seconds = time.perf_counter() - started
    made.write(folder)
    files = {path.suffix: path for path in (folder / "model.onnx", folder / "model.tflite")}
    return OurFiles(files, made, seconds)


def better_than(sqnr_db: float | None, same_class: float | None, **options: Any) -> dict[str, Any]:
    """Options that make the ladder climb until these are reached on the calibration samples."""
    return {"method": "auto", "goal": Goal(sqnr_db=sqnr_db, same_class=same_class), **options}


def nearest(**options: Any) -> dict[str, Any]:
    """Options for min-max ranges and round-to-nearest, and nothing else."""
    return {"method": "given", "correct_bias": False, **options}


def in_format(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same ladder, held to the number format it starts in: no node may go to float or to more bits."""
    return {**options, "alternatives": ()}


def learned(**options: Any) -> dict[str, Any]:
    """Options for everything that helps at one number format, whatever the gates say."""
    return {"method": "given", "ranges": "auto", "equalise": True, "rounding": "block", "histograms": True, **options}
