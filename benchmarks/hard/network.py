"""What a hard network is: a module, samples that calibrate it, others that judge it, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolchain.samples import SampleSet, samples_from

Array: TypeAlias = NDArray[Any]
Predict: TypeAlias = Callable[[Sequence[Array]], list[Array]]
"""Inputs (N, ...) in the module's order -> outputs (N, ...), for any N."""

Metric: TypeAlias = Callable[[Sequence[Array], Array | None], float]
BATCH = 32


class MissingSource(Exception):
    """Data or weights that are not here; the message says what to do."""


@dataclass(frozen=True)
class Sources:
    """Where data and weights are. `speech` is an .npz of spoken digits (pcm16 (N, 8000), digit, speaker, index)."""

    speech: Path | None
    weights: Path
    cache: Path

    def need_speech(self) -> Path:
        if self.speech is None or not self.speech.is_file():
            raise MissingSource("needs recordings of spoken digits: --speech spoken_digits.npz")
        return self.speech

    def need_weights(self, path: str) -> Path:
        """A file inside a package of the weights' venv."""
        found = sorted(self.weights.glob(f"lib/python3*/site-packages/{path}"))
        if not found:
            raise MissingSource(f"{self.weights} has no {path}: `make bench-quantize` installs it")
        return found[0]


@dataclass(frozen=True)
class HardNetwork:
    """`calibration` and `judging` map input names, in the module's order, to arrays (N, ...); no sample is in both.

    `metric` scores the outputs of samples with these labels from 0 to 1, higher is better. `stream` scores a network
    that feeds its state back to itself by running it as it is used; `streams` are its samples in order of time, for
    whoever can follow them.
    """

    name: str
    module: Any
    calibration: Mapping[str, Array]
    calibration_labels: NDArray[np.int64]
    judging: Mapping[str, Array]
    labels: NDArray[np.int64]
    metric: Metric
    measure: str
    stream: Callable[[Predict], float] | None = None
    streams: SampleSet | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def samples(self) -> SampleSet:
        """The samples as the toolchain takes them."""
        if self.streams is not None:
            return self.streams
        return samples_from(
            {**self.calibration, "labels": self.calibration_labels},
            name=self.name,
            judging={**self.judging, "labels": self.labels},
            calibration_count=len(self.calibration_labels),
            judging_count=len(self.labels),
        )

    def score(self, predict: Predict) -> float:
        """Points from 0 to 100."""
        if self.stream is not None:
            return 100 * self.stream(predict)
        return 100 * self.metric(predict(list(self.judging.values())), self.labels)

    def predict_float(self, inputs: Sequence[Array]) -> list[Array]:
        """The float module's own outputs; a `Predict`."""
        import torch

        found: list[list[Array]] = []
        with torch.inference_mode():
            for start in range(0, len(inputs[0]), BATCH):
                given = [torch.from_numpy(np.ascontiguousarray(array[start : start + BATCH])) for array in inputs]
                results = self.module(*given)
                results = results if isinstance(results, (tuple, list)) else (results,)
                found.append([result.numpy() for result in results])
        return [np.concatenate(column) for column in zip(*found, strict=True)]


def share_right(outputs: Sequence[Array], labels: Array | None) -> float:
    """Top-1 accuracy of class scores (N, C)."""
    assert labels is not None
    return float((outputs[0].argmax(-1) == labels).mean())
