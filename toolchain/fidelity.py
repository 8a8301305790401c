"""How far a deployed model's outputs are from the reference's, gathered sample by sample.

* SQNR = 10 log10(sum t^2 / sum (y - t)^2) in dB, over all samples and outputs
* balanced SQNR: the same where every feature of every output counts alike, whatever its size: sums of each feature
  (along the shortest axis but the batch's) are divided by its sum of t^2, so that scores beside pixels are not lost
* cosine = sum y t / sqrt(sum y^2 sum t^2)
* steps = max |y - t| / scale, scale being the output's quantization step
* same class = share of samples whose largest value of the first output is at the same place; where the first output
  is integers (an argmax, tokens), the share of them that are the same

Integer and boolean outputs have no part in the other figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log10, sqrt
from typing import TypeAlias

import numpy as np

Metric: TypeAlias = Callable[[Sequence[np.ndarray], np.ndarray | None], float]
"""A user's judgement: (float outputs over all samples, labels or None) -> a score, higher is better."""


@dataclass
class Comparison:
    """Sums over the samples seen so far. `steps` holds each output's quantization step, or None for a float file."""

    steps: Sequence[float] | None = None
    samples: int = 0
    signal: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    energy: float = 0.0
    peak: float = 0.0
    max_error: float = 0.0
    max_error_steps: float = 0.0
    same: float = 0.0
    _features: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _classes: bool = field(default=True, repr=False)

    def add(self, outputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> None:
        """One batch of float outputs and the reference's."""
        # the sum of a whole sample, say, has no axis
        outputs, targets = ([np.atleast_1d(array) for array in arrays] for arrays in (outputs, targets))
        self.samples += len(targets[0])
        for index, (output, target) in enumerate(zip(outputs, targets, strict=True)):
            if not is_real(target):
                continue
            y, t = output.astype(np.float64), target.astype(np.float64)
            error = np.abs(y - t) if np.isfinite(y).all() else np.full_like(t, np.inf)
            self.signal += float((t * t).sum())
            self.noise += float((error * error).sum())
            self._add_features(index, t * t, error * error)
            self.product += float((y * t).sum())
            self.energy += float((y * y).sum())
            self.peak = max(self.peak, float(np.abs(t).max(initial=0.0)))
            self.max_error = max(self.max_error, worst := float(error.max(initial=0.0)))
            if self.steps is not None:
                self.max_error_steps = max(self.max_error_steps, worst / self.steps[index])
        self._classes = self._classes and (is_classes(targets[0]) or not is_real(targets[0]))
        if self._classes and is_real(targets[0]):
            self.same += int((outputs[0].argmax(-1) == targets[0].argmax(-1)).sum())
        elif self._classes:
            self.same += float((outputs[0] == targets[0]).reshape(len(targets[0]), -1).mean(1).sum())

    @property
    def sqnr_db(self) -> float:
        if self.noise == 0.0:
            return 300.0
        return min(10 * log10(max(self.signal, 1e-300) / self.noise), 300.0)

    def _add_features(self, index: int, signal: np.ndarray, noise: np.ndarray) -> None:
        axis = feature_axis(signal.shape)
        others = tuple(other for other in range(signal.ndim) if other != axis)
        sums = np.stack([signal.sum(others), noise.sum(others)])
        self._features[index] = self._features.get(index, 0.0) + sums

    @property
    def balanced_db(self) -> float:
        parts = []
        for signal, noise in self._features.values():
            # a feature that is next to nothing counts as what a thousandth of the mean would
            parts.append(np.atleast_1d(noise / np.maximum(signal, max(1e-3 * signal.mean(), 1e-300))))
        share = float(np.concatenate(parts).mean()) if parts else 0.0
        return 300.0 if share == 0.0 else float(np.clip(-10 * log10(share), -300.0, 300.0))

    @property
    def cosine(self) -> float:
        scale = sqrt(self.energy * self.signal)
        return self.product / scale if scale else float(self.energy == self.signal)

    @property
    def relative_error(self) -> float:
        """Largest error relative to the largest reference value."""
        return self.max_error / self.peak if self.peak else self.max_error

    @property
    def same_class(self) -> float | None:
        """None where the first output is neither a row of class scores nor integers."""
        return self.same / self.samples if self._classes and self.samples else None


def feature_axis(shape: Sequence[int]) -> int:
    """The axis that an output's features lie on: the shortest but the batch's, the last of several."""
    return min(range(1, len(shape)), key=lambda axis: (shape[axis], -axis), default=0)


def is_classes(output: np.ndarray) -> bool:
    """Whether an output `(N, C)` can be read as scores of C > 1 classes."""
    return output.ndim == 2 and output.shape[1] > 1


def is_real(output: np.ndarray) -> bool:
    """Whether an output of the float reference holds real numbers, and not indices or booleans."""
    return output.dtype.kind == "f"


def is_class_numbers(output: np.ndarray) -> bool:
    """Whether an output `(N,)` of the reference is a class number a sample."""
    return output.ndim == 1 and output.dtype.kind in "iu"


def sqnr_db(target: np.ndarray, value: np.ndarray) -> float:
    """SQNR of one array in dB, at most 300."""
    comparison = Comparison()
    comparison.add([value[None]], [target[None]])
    return comparison.sqnr_db


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy of class scores `(N, C)`, or class numbers `(N,)`, against labels `(N,)`."""
    return float(((outputs if outputs.ndim == 1 else outputs.argmax(-1)) == labels).mean())
