"""Factors that minimise the noise of `equalise_noise`: a convex problem in log f within a box, solved by projected
gradient steps of the Adam kind (Kingma and Ba, arXiv 1412.6980). Deterministic; numpy in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolchain.compress.equalisation.noise import Noise

_STEPS = 400
_STEP = 0.2  # of log f
_DECAYS = (0.9, 0.99)
_STAY = 1e-5  # what a unit of mean squared log f costs: where nothing is gained, factors stay 1


def total_noise(terms: Sequence[Noise], logs: np.ndarray, gradient: np.ndarray | None = None) -> float:
    """Summed noise to signal; adds its derivative to `gradient` where one is given."""
    return sum(term.noise(logs, gradient) for term in terms)


def minimise_noise(terms: Sequence[Noise], low: np.ndarray, high: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Log factors `(count,)` between `low` and `high`, from `start` on."""
    logs = np.clip(start, low, high)
    best, least = logs, np.inf
    mean, square = np.zeros_like(logs), np.zeros_like(logs)
    free = max(int(np.count_nonzero(low < high)), 1)
    for step in range(_STEPS):
        gradient = np.zeros_like(logs)
        noise = total_noise(terms, logs, gradient)
        if noise < least:
            best, least = logs, noise
        gradient = gradient / noise + 2 * _STAY / free * logs
        mean = _DECAYS[0] * mean + (1 - _DECAYS[0]) * gradient
        square = _DECAYS[1] * square + (1 - _DECAYS[1]) * gradient**2
        corrected = mean / (1 - _DECAYS[0] ** (step + 1)), square / (1 - _DECAYS[1] ** (step + 1))
        size = _STEP * 0.5 * (1 + np.cos(np.pi * step / _STEPS))
        logs = np.clip(logs - size * corrected[0] / (np.sqrt(corrected[1]) + 1e-15), low, high)
    return np.asarray(best)
