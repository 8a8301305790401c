"""Histograms of what a layer rounds, over the grid it is rounded to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.quantization import AffineParams, QuantizedGraph, TensorStatistics

BARS = 64


@dataclass(frozen=True)
class Histogram:
    """`counts (BARS,)` over `[low, high]`, which spans the values and the grid; the grid reaches from `grid_low` to
    `grid_high` in `levels` levels. Of weights (`is_weights`) all are in steps of the grid, each channel in its own."""

    low: float
    high: float
    counts: tuple[int, ...]
    grid_low: float
    grid_high: float
    levels: int
    is_weights: bool


def result_histogram(statistics: TensorStatistics, params: AffineParams) -> Histogram:
    """Of float values over the grid `params`. Raises ValueError where no histogram was kept."""
    if statistics.counts is None:
        raise ValueError("no histogram was kept")
    edges = np.linspace(-statistics.extent, statistics.extent, len(statistics.counts) + 1)
    centres = np.clip((edges[:-1] + edges[1:]) / 2, statistics.minimum, statistics.maximum)
    return _histogram(centres, statistics.counts, params.bounds, params, is_weights=False)


def weight_histogram(model: QuantizedGraph, name: str) -> Histogram:
    """Of a weight in steps of its grid."""
    params, weight = model.params[name], model.graph.constants[name]
    corrected = weight + model.corrections[name] if name in model.corrections else weight
    steps = corrected / params.broadcast(params.scale, weight.ndim)
    bounds = (float(params.q_min), float(params.q_max))
    return _histogram(steps.reshape(-1), np.ones(steps.size, np.int64), bounds, params, is_weights=True)


def _histogram(
    values: np.ndarray, counts: np.ndarray, bounds: tuple[float, float], params: AffineParams, *, is_weights: bool
) -> Histogram:
    seen = values[counts > 0]
    low, high = min(bounds[0], float(seen.min(initial=0.0))), max(bounds[1], float(seen.max(initial=0.0)))
    found, _ = np.histogram(values, BARS, (low, high), weights=counts)
    levels = params.q_max - params.q_min + 1
    return Histogram(low, high, tuple(int(c) for c in found), *bounds, levels, is_weights)
