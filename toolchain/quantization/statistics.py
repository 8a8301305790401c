"""What one streaming pass keeps of a tensor: exact minimum and maximum, of the whole and of every channel, the channel
means, a moving average of the extremes, and a histogram of fixed size.

The histogram has `BINS` bins over `[-extent, extent]`, `extent` a power of two. When a value falls outside, `extent`
doubles and neighbouring bins merge, so the counts stay exact and the memory does not depend on the number of samples.

The moving average is over batches as they are given, or as many samples at a time as a graph that mixes samples was
traced with: one minimum and one maximum each (Jacob et al., arXiv 1712.05877, section 3.1;
TFLite's and PyTorch's observers): after n batches with the minima x_1 .. x_n

    average = sum_i m^(n-i) x_i / sum_i m^(n-i),    m = MOMENTUM

which is `average <- m average + (1 - m) x` without its start from the first batch, whose weight would stay m^(n-1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf, log, log2

import numpy as np

from toolchain.graph import Graph, Op

BINS = 4096
MOMENTUM = 0.9
"""Share that the moving average keeps at each batch: the last ten batches make two thirds of it."""


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one tensor so far.

    `means`, float64, `channel_min` and `channel_max`, float32, are `(C,)`, over everything but the channel axis, from
    `elements` values a channel. `counts (BINS,)` int64 are over `[-extent, extent]`, of all values or of a regular
    subset of them, `None` when not asked for. `average_minimum` and `average_maximum` are the moving averages over
    `batches` batches.
    """

    minimum: float = inf
    maximum: float = -inf
    elements: int = 0
    extent: float = 0.0
    means: np.ndarray | None = None
    counts: np.ndarray | None = None
    channel_min: np.ndarray | None = None
    channel_max: np.ndarray | None = None
    batches: int = 0
    average_minimum: float = 0.0
    average_maximum: float = 0.0

    def minmax(self) -> tuple[float, float]:
        return self.minimum, self.maximum

    def moving_average(self) -> tuple[float, float]:
        """Range between the averages of the batches' minima and of their maxima."""
        return (self.average_minimum, self.average_maximum) if self.batches else self.minmax()

    def percentile(self, percent: float) -> tuple[float, float]:
        """Range that leaves `(100 - percent) / 2` % of the values outside at either end, never wider than min-max.

        Where the counts are of a subset, a tail too thin for it ends between the outermost value counted and the
        exact extreme, on the line an exponential tail would have: linear in the logarithm of the tail. Raises
        ValueError where no histogram was kept.
        """
        counts = self.counted()
        tail, total = (100 - percent) / 200, max(int(counts.sum()), 1)
        mass = np.cumsum(counts) / total
        edges = np.linspace(-self.extent, self.extent, BINS + 1)
        low = max(float(edges[int(np.searchsorted(mass, tail, side="right"))]), self.minimum)
        high = min(float(edges[min(int(np.searchsorted(mass, 1 - tail)) + 1, BINS)]), self.maximum)
        beyond = self._beyond(tail, total)
        return low + (self.minimum - low) * beyond, high + (self.maximum - high) * beyond

    def counted(self) -> np.ndarray:
        """The histogram. Raises ValueError where none was kept."""
        if self.counts is None:
            raise ValueError("no histogram was kept: calibrate with histograms=True")
        return self.counts

    def _beyond(self, tail: float, total: int) -> float:
        """How far, from the outermost of the `total` values counted (0) to the extreme of all (1), a tail ends."""
        everything = max(self.values, total)
        if tail * total >= 1:
            return 0.0
        return 1.0 if tail * everything <= 1 else log(tail * total) / log(total / everything)

    @property
    def values(self) -> int:
        """How many values these are the statistics of."""
        return self.elements * (0 if self.means is None else len(self.means))

    def after_batch(self, low: float, high: float) -> TensorStatistics:
        """With one batch more in the moving average, whose extremes these are; all else holds its values already."""
        recent = (1 - MOMENTUM) / (1 - MOMENTUM ** (self.batches + 1))
        return replace(
            self,
            batches=self.batches + 1,
            average_minimum=self.average_minimum + (low - self.average_minimum) * recent,
            average_maximum=self.average_maximum + (high - self.average_maximum) * recent,
        )

    def merged(self, other: TensorStatistics) -> TensorStatistics:
        """Statistics of both sets of values, those of `other` after one's own."""
        if not self.elements or not other.elements:
            return self if self.elements else other
        extent = max(self.extent, other.extent)
        counts = None
        if self.counts is not None or other.counts is not None:
            counts = widened(self, extent) + widened(other, extent)
        elements, batches = self.elements + other.elements, self.batches + other.batches
        recent = (1 - MOMENTUM**other.batches) / (1 - MOMENTUM**batches) if batches else 0.0
        return TensorStatistics(
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            elements,
            extent,
            _mixed(self.means, other.means, other.elements / elements),
            counts,
            _outer(np.minimum, self.channel_min, other.channel_min),
            _outer(np.maximum, self.channel_max, other.channel_max),
            batches,
            self.average_minimum + (other.average_minimum - self.average_minimum) * recent,
            self.average_maximum + (other.average_maximum - self.average_maximum) * recent,
        )


def _mixed(one: np.ndarray | None, other: np.ndarray | None, share: float) -> np.ndarray | None:
    if one is None or other is None:
        return other if one is None else one
    mixed: np.ndarray = one + (other - one) * share
    return mixed


def _outer(choose: np.ufunc, one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    if one is None or other is None:
        return other if one is None else one
    chosen: np.ndarray = choose(one, other)
    return chosen


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
