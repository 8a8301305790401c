"""How much noise rounding adds to a scaled graph: the objective that factors are chosen by when ranges were measured.

A tensor of range R with L levels to either side adds noise of variance `(R / L)^2 / 12` to each of its elements. With
S_oj what noise of variance 1 in kernel (o, j) of a weight `W' = W f_up / f_down` costs, noise to signal, unscaled,

    n = sum_oj (R' / L)^2 / 12 * S_oj f_down,j^2 / f_up,o^2,      R' = max |W'|,

with R' one a tensor or one an output channel, and `sum_i (A' / 2L)^2 / 12 * S_i / f_i^2` for an activation of range A'.
The objective is their sum over all tensors: 1 / SQNR, were they independent. Its extremes are the objective of Nagel
et al., arXiv 1906.04721, section 4.1 (weights alone) and that of Meller et al., arXiv 1902.01917 (activations too). In
log f each term is convex, an exponential of a log-sum-exp, with R' as a p-norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

_NORM = 16.0  # the p of the p-norm that stands for the maximum
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class WeightNoise:
    """One weight. `size (O, J)` is the largest magnitude of each kernel, `up (O,)` and `down (O, J)`, or `(1, J)` where
    all outputs read the same, the roots of its factors, `cost (O, J)` the S of each kernel."""

    name: str
    size: np.ndarray
    up: np.ndarray
    down: np.ndarray
    cost: np.ndarray
    levels: float
    per_channel: bool

    @cached_property
    def top(self) -> float:
        return max(float(self.size.max()), _TINY)

    @cached_property
    def powers(self) -> np.ndarray:
        return np.asarray((self.size / self.top) ** _NORM)

    def noise(self, logs: np.ndarray, gradient: np.ndarray | None = None) -> float:
        """Noise to signal with factors `exp(logs)`; adds its derivative to `gradient` where one is given."""
        up, down = logs[self.up], logs[self.down]
        highest, lowest = float(up.max()), float(down.min())
        grown, shrunk = np.exp(_NORM * (up - highest)), np.exp(-_NORM * (down - lowest))
        widened = np.exp(2 * (down - lowest))
        rows = np.maximum(_rows(self.powers, shrunk), _TINY)
        each = (self.top / self.levels) ** 2 / 12 * _rows(self.cost, widened)
        if self.per_channel:
            each *= rows ** (2 / _NORM)
        else:
            total = max(float(grown @ rows), _TINY)
            each *= total ** (2 / _NORM) * np.exp(2 * (highest - up))
        if gradient is None:
            return float(each.sum())
        if self.per_channel:
            spread = each / rows
        else:
            spread = each.sum() * grown / total
            np.add.at(gradient, self.up, 2 * (spread * rows - each))
        costs = np.maximum(_rows(self.cost, widened), _TINY)
        slope = _columns(self.cost, widened, each / costs) - _columns(self.powers, shrunk, spread)
        np.add.at(gradient, self.down, 2 * slope)
        return float(each.sum())


def _rows(matrix: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Sum over inputs `(O,)` of `matrix * inputs`."""
    return np.asarray(matrix @ inputs[0] if len(inputs) == 1 else (matrix * inputs).sum(axis=1))


def _columns(matrix: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """`matrix * inputs * outputs` in the shape of `inputs`."""
    product = (outputs @ matrix)[None] * inputs if len(inputs) == 1 else outputs[:, None] * matrix * inputs
    return np.asarray(product)


@dataclass(frozen=True, eq=False)
class ActivationNoise:
    """One activation: `size (C,)` is the largest magnitude of each channel, `roots (C,)` are those of their factors,
    `cost (C,)` the S of each."""

    name: str
    size: np.ndarray
    roots: np.ndarray
    cost: np.ndarray
    levels: float

    def noise(self, logs: np.ndarray, gradient: np.ndarray | None = None) -> float:
        """Noise to signal with factors `exp(logs)`; adds its derivative to `gradient` where one is given."""
        here = logs[self.roots]
        highest = float(here.max())
        grown = np.maximum((self.size * np.exp(here - highest)) ** _NORM, _TINY)
        total = grown.sum()
        each = (total ** (1 / _NORM) / self.levels) ** 2 / 12 * self.cost * np.exp(2 * (highest - here))
        if gradient is not None:
            np.add.at(gradient, self.roots, 2 * (each.sum() * grown / total - each))
        return float(each.sum())


Noise: TypeAlias = WeightNoise | ActivationNoise
