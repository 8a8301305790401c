"""`CALIBRATION=synthetic`: samples made from the model itself, which also judge unless real samples are named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.compress.synthesis import Synthesis, affordable_inputs, synthesise
from toolchain.errors import OptionError
from toolchain.graph import Graph
from toolchain.progress import SILENT, Progress
from toolchain.samples import SampleSet, Selection
from toolchain.samples.values import ColumnRows
from toolchain.stages.inputs import leaves
from toolchain.stages.trace import as_arrays

SYNTHETIC = "synthetic"

ONLY_SYNTHETIC = (
    "judged on synthetic inputs: figures say how near the files are to the float model there, not how they do on real "
    f"inputs; CALIBRATION={SYNTHETIC}+SAMPLES judges on samples"
)


def read_calibration(calibration: Any) -> tuple[bool, Any]:
    """Whether `synthetic` or `synthetic+SAMPLES` is asked for, and the real samples that are named, or None."""
    if not isinstance(calibration, str):
        return False, calibration
    first, plus, named = calibration.partition("+")
    if first != SYNTHETIC:
        return False, calibration
    if plus and not named:
        raise OptionError(f"{calibration!r} names no samples", hint=f"write {SYNTHETIC}, or {SYNTHETIC}+photos")
    return True, named or None


def example_set(inputs: Any) -> SampleSet:
    """The example inputs as a set of one sample, which is both parts: it stands in until inputs are made."""
    rows = ColumnRows([np.asarray(array) for array in leaves(as_arrays(inputs)) if hasattr(array, "shape")])
    return SampleSet(name=SYNTHETIC, for_calibration=Selection(rows, (0,)), for_judging=Selection(rows, (0,)))


def synthetic_samples(
    graph: Graph,
    inputs: Any,
    *,
    calibration_count: int | None = None,
    judging: SampleSet | int | None = None,
    progress: Progress = SILENT,
) -> tuple[SampleSet, Synthesis]:
    """Samples made of `graph`, as traced with the example `inputs`; they are judged on what `judging` judges on, or on
    so many synthetic ones. Without counts, as many as are made in about two minutes."""
    affordable = affordable_inputs(graph)
    count = calibration_count or (affordable if isinstance(judging, SampleSet) else affordable * 2 // 3)
    kept = 0 if isinstance(judging, SampleSet) else judging or max(count // 2, 1)
    made = synthesise(graph, _in_order(graph, inputs), count + kept, progress=progress)
    rows = ColumnRows(made.inputs, input_names=graph.input_names)
    numbers = tuple(range(count + kept))
    judged = judging.for_judging if isinstance(judging, SampleSet) else Selection(rows, numbers[count:])
    return SampleSet(name=SYNTHETIC, for_calibration=Selection(rows, numbers[:count]), for_judging=judged), made


def _in_order(graph: Graph, inputs: Any) -> list[np.ndarray]:
    """An example for each input of the graph. Raises OptionError where they are not those it was traced with."""
    held = as_arrays(inputs)
    if isinstance(held, Mapping) and set(held) == set(graph.input_names):
        held = tuple(held[name] for name in graph.input_names)
    found = [np.asarray(array) for array in leaves(held) if hasattr(array, "shape")]
    if [array.shape for array in found] != [value.type.shape for value in graph.inputs]:
        wanted = ", ".join(f"{value.name}{list(value.type.shape)}" for value in graph.inputs)
        hint = "give them in the order of forward's arguments, as a tuple"
        raise OptionError(f"the example inputs cannot be told apart: the model takes {wanted}", hint=hint)
    return found
