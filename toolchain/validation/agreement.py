"""The runtimes against each other: one integer specification, so their outputs lie within a few steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolchain.fidelity import is_classes
from toolchain.quantization import QuantizedGraph
from toolchain.validation.results import Agreement
from toolchain.validation.tracks import Track, output_step


def compare_runtimes(model: QuantizedGraph, tracks: Sequence[Track], within: int) -> tuple[Agreement, ...]:
    """The first track beside each other one, counted in steps of the outputs; nothing where activations are float."""
    if not model.has_integer_activations:
        return ()
    return tuple(_agreement(model, tracks[0], other, within) for other in tracks[1:])


def _agreement(model: QuantizedGraph, first: Track, second: Track, within: int) -> Agreement:
    worst, close, values, same = 0, 0, 0, 0
    pairs = list(zip(first.outputs, second.outputs, strict=False))
    classes = model.graph.is_real(model.graph.outputs[0]) and all(is_classes(output[0]) for output, _ in pairs)
    reals = [model.graph.is_real(name) for name in model.graph.outputs]
    steps = [output_step(model, name) if name in model.params else None for name in model.graph.outputs]
    for ours, theirs in pairs:
        for a, b, step, is_real in zip(ours, theirs, steps, reals, strict=True):
            difference = np.abs(a.astype(np.float64) - b.astype(np.float64)) / _unit(a, step)
            if not is_real:  # an index or boolean is right or wrong, however near
                difference = np.where(difference > 0, within + 1.0, 0.0)
            worst = max(worst, round(float(difference.max(initial=0))))
            # float outputs carry the rounding of their own last bits
            close += int((difference <= within + 1e-3).sum())
            values += difference.size
        same += int(classes and ours[0].argmax() == theirs[0].argmax())
    return Agreement(
        f"{first.file} {first.runner.name}",
        f"{second.file} {second.runner.name}",
        len(pairs),
        worst,
        close / max(values, 1),
        same / len(pairs) if classes and pairs else None,
        gated=second.most_samples is None,
    )


def _unit(output: np.ndarray, step: float | None) -> float:
    """What differences are counted in: steps; where a float node makes the output, the steps it would have in int8."""
    if output.dtype.kind != "f":
        return 1.0
    return step or max(float(np.ptp(output)) / 255, 1e-30)
