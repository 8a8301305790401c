"""How far a deployed model's outputs are from the reference's, gathered sample by sample.

* SQNR = 10 log10(sum t^2 / sum (y - t)^2) in dB, over all samples and outputs
* cosine = sum y t / sqrt(sum y^2 sum t^2)
* steps = max |y - t| / scale, scale being the output's quantization step
* same class = share of samples whose largest value of the first output is at the same place
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log10, sqrt

import numpy as np


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
    same: int = 0
    _classes: bool = field(default=True, repr=False)

    def add(self, outputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> None:
        """One batch of float outputs and the reference's."""
        self.samples += len(targets[0])
        for index, (output, target) in enumerate(zip(outputs, targets, strict=True)):
            y, t = output.astype(np.float64), target.astype(np.float64)
            error = np.abs(y - t) if np.isfinite(y).all() else np.full_like(t, np.inf)
            self.signal += float((t * t).sum())
            self.noise += float((error * error).sum())
            self.product += float((y * t).sum())
            self.energy += float((y * y).sum())
            self.peak = max(self.peak, float(np.abs(t).max(initial=0.0)))
            self.max_error = max(self.max_error, worst := float(error.max(initial=0.0)))
            if self.steps is not None:
                self.max_error_steps = max(self.max_error_steps, worst / self.steps[index])
        self._classes = self._classes and is_classes(targets[0])
        if self._classes:
            self.same += int((outputs[0].argmax(-1) == targets[0].argmax(-1)).sum())

    @property
    def sqnr_db(self) -> float:
        return min(10 * log10(max(self.signal, 1e-300) / max(self.noise, 1e-300)), 300.0)

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
        """None where the first output is no row of class scores."""
        return self.same / self.samples if self._classes and self.samples else None


def is_classes(output: np.ndarray) -> bool:
    """Whether an output `(N, C)` can be read as scores of C > 1 classes."""
    return output.ndim == 2 and output.shape[1] > 1


def sqnr_db(target: np.ndarray, value: np.ndarray) -> float:
    """SQNR of one array in dB, at most 300."""
    comparison = Comparison()
    comparison.add([value[None]], [target[None]])
    return comparison.sqnr_db


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy of class scores `(N, C)` against labels `(N,)`."""
    return float((outputs.argmax(-1) == labels).mean())
