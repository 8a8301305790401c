"""What one streaming pass keeps of a tensor: exact minimum and maximum, channel means, and a histogram of fixed size.

The histogram has `BINS` bins over `[-extent, extent]`, `extent` a power of two. When a value falls outside, `extent`
doubles and neighbouring bins merge, so the counts stay exact and the memory does not depend on the number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log2

import numpy as np

from toolchain.graph import Graph, Op

BINS = 4096


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one tensor so far.

    `means (C,)` float64 are over everything but the channel axis, from `elements` values a channel; `counts (BINS,)`
    int64 are over `[-extent, extent]`, `None` when not asked for.
    """

    minimum: float = inf
    maximum: float = -inf
    elements: int = 0
    extent: float = 0.0
    means: np.ndarray | None = None
    counts: np.ndarray | None = None

    def minmax(self) -> tuple[float, float]:
        return self.minimum, self.maximum

    def percentile(self, percent: float) -> tuple[float, float]:
        """Range that leaves `(100 - percent) / 2` % of the values outside at either end, never wider than min-max.

        Raises ValueError where no histogram was kept.
        """
        if self.counts is None:
            raise ValueError("no histogram was kept: calibrate with histograms=True")
        tail = (100 - percent) / 200
        mass = np.cumsum(self.counts) / max(int(self.counts.sum()), 1)
        edges = np.linspace(-self.extent, self.extent, BINS + 1)
        low = edges[int(np.searchsorted(mass, tail, side="right"))]
        high = edges[min(int(np.searchsorted(mass, 1 - tail)) + 1, BINS)]
        return max(float(low), self.minimum), min(float(high), self.maximum)

    def merged(self, other: TensorStatistics) -> TensorStatistics:
        """Statistics of both sets of values."""
        extent = max(self.extent, other.extent)
        counts = None
        if self.counts is not None or other.counts is not None:
            counts = widened(self, extent) + widened(other, extent)
        low, high = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        return TensorStatistics(low, high, self.elements + other.elements, extent, self._merged_means(other), counts)

    def _merged_means(self, other: TensorStatistics) -> np.ndarray | None:
        if self.means is None or other.means is None:
            return other.means if self.means is None else self.means
        share = other.elements / (self.elements + other.elements)
        merged: np.ndarray = self.means + (other.means - self.means) * share
        return merged


def channel_axis(graph: Graph, name: str) -> int:
    """The axis a tensor's features lie on: 1 for a batch of images `(N, C, H, W)`, the last for any other tensor and
    for what a linear layer reads."""
    rank = graph.types[name].rank
    read_by_linear = any(node.op is Op.LINEAR for node in graph.consumers.get(name, ()))
    return 1 if rank == 4 and not read_by_linear else max(rank - 1, 0)


def extent_for(bound: float) -> float:
    """The smallest power of two that is at least `bound` (a tensor of zeros: the smallest normal number)."""
    return float(2.0 ** max(ceil(log2(bound)) if bound > 0 else -126, -126))


def widened(statistics: TensorStatistics, extent: float) -> np.ndarray:
    """Counts of `statistics` over the wider `[-extent, extent]`."""
    if statistics.counts is None:
        return np.zeros(BINS, np.int64)
    factor = min(round(extent / statistics.extent), BINS)
    if factor == 1:
        return statistics.counts
    # bins pair up around zero; what is left over at either end is empty
    half = BINS // 2
    merged = np.zeros(BINS, np.int64)
    if factor >= BINS:
        merged[half - 1], merged[half] = statistics.counts[:half].sum(), statistics.counts[half:].sum()
        return merged
    kept = max(half // factor, 1)
    size = min(factor, half)
    merged[half - kept : half] = statistics.counts[:half].reshape(kept, size).sum(1)
    merged[half : half + kept] = statistics.counts[half:].reshape(kept, size).sum(1)
    return merged
