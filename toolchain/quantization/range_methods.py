"""How the range of a tensor follows from its statistics: a wide range loses to rounding, a narrow one to clipping.

* `minmax`, `moving_average`, `percentile`: read off, see `statistics`.
* `entropy` (Migacz, 8-bit Inference with TensorRT, GTC 2017): of the windows of the histogram the one with the least

      KL(P || Q) = sum_b P_b log(P_b / Q_b)

  P is the window with what lies outside added to its outermost bins, Q the window without that, its bins joined to as
  many groups as there are integers and each group's mass spread evenly over those of its bins that are not empty.
  The published search is over |x|; here each end has its own, in turn, so that a rectified tensor uses all integers.
* `mse`: of all affine grids, `k scale` for `q_min <= k + zero_point <= q_max`, the one with the least

      E = integral (x - Q(x))^2 p(x) dx,      Q(x) = scale clip(round(x / scale), low / scale, high / scale)

  with p constant in each bin, in closed form: inside, an antiderivative of `(x - k scale)^2` is
  `k scale^3 / 12 + (x - k scale)^3 / 3` with `k = round(x / scale)`; outside it is `(x - high)^3 / 3`. Both ends are
  searched: for each scale every zero point.

Weights are known, so their error is measured: `mse_weight_bounds` minimises `sum |w - Q(w)|^p` for each channel.
p = 2 as in Banner et al. (arXiv 1810.05723) and Nagel et al. (AdaRound, arXiv 2004.10568); Nahshan et al. (LAPQ, arXiv
1911.07190) find larger ones, 2.4, better for few bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from toolchain.graph.types import DType
from toolchain.quantization.affine import AffineParams, asymmetric_params, largest_integer, symmetric_params
from toolchain.quantization.scheme import Granularity
from toolchain.quantization.statistics import BINS, TensorStatistics


class RangeMethod(StrEnum):
    """How an activation's range follows from its statistics; `auto` measures which of the others serves best."""

    MINMAX = "minmax"
    MOVING_AVERAGE = "moving_average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"
    AUTO = "auto"


PERCENT = 99.999
"""Share of the values that the percentile method keeps, in percent, unless another is asked for."""


def choose_range(
    statistics: TensorStatistics,
    method: RangeMethod,
    *,
    dtype: DType = DType.INT8,
    symmetric: bool = False,
    percentile: float = PERCENT,
) -> tuple[float, float]:
    """(low, high) of an activation stored as `dtype`, never wider than min-max.

    `symmetric` is for grids whose zero point is 0. Raises ValueError where the method needs a histogram and none was
    kept, and for `auto`, which cannot be read off statistics (`engine.range_choice`).
    """
    if method == RangeMethod.MINMAX:
        return statistics.minmax()
    if method == RangeMethod.MOVING_AVERAGE:
        return statistics.moving_average()
    if method == RangeMethod.PERCENTILE:
        return statistics.percentile(percentile)
    search = {RangeMethod.ENTROPY: _entropy_range, RangeMethod.MSE: _mse_range}.get(RangeMethod(method))
    if search is None:
        raise ValueError(f"{method} is chosen by measuring, not from statistics")
    density = _Density.of(statistics)
    if density is None:
        return statistics.minmax()
    bin_width = 2 * statistics.extent / BINS
    low, high = (end * bin_width for end in search(density, dtype, symmetric or dtype is DType.INT16))
    return max(low, statistics.minimum), min(high, statistics.maximum)


def activation_params(low: float, high: float, dtype: DType, *, symmetric: bool) -> AffineParams:
    """Per-tensor parameters of an activation in `[low, high]`; a symmetric one uses its lowest integer too."""
    if not symmetric:
        return asymmetric_params(low, high, dtype)
    params = symmetric_params(np.asarray(max(abs(low), abs(high))), dtype)
    return AffineParams(dtype, params.scale, params.zero_point, None, params.q_min - 1, params.q_max)


@dataclass(frozen=True)
class _Density:
    """The part of a histogram that holds values, and zero. Lengths are in bins, so that the range does not matter:
    `counts (B,)` float64 between `edges (B + 1,)`, whole numbers."""

    counts: np.ndarray
    edges: np.ndarray
    low: float
    high: float

    @classmethod
    def of(cls, statistics: TensorStatistics) -> _Density | None:
        """None where there is nothing to search: no values, or one value only."""
        counts = statistics.counted().astype(np.float64)
        if not counts.any() or statistics.minimum == statistics.maximum:
            return None
        per_bin = BINS / 2 / statistics.extent
        low, high = (bound * per_bin for bound in statistics.minmax())
        first, last = (int(np.clip(np.floor(bound) + BINS // 2, 0, BINS - 1)) for bound in (low, high))
        # an extreme that the counted subset has missed is there all the same
        counts[[first, last]] = np.maximum(counts[[first, last]], 1)
        first, last = min(first, BINS // 2), max(last, BINS // 2)
        edges = np.arange(first - BINS // 2, last + 2 - BINS // 2, dtype=np.float64)
        return cls(counts[first : last + 1], edges, min(low, 0.0), max(high, 0.0))

    @property
    def zero(self) -> int:
        """The bin whose lower edge is 0."""
        return int(-self.edges[0])

    def bin_of(self, places: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.clip(np.floor(places - self.edges[0]).astype(np.int64), 0, len(self.counts) - 1)
        return found


_SCALES = np.geomspace(1, 1 / 64, 96)
"""Scales tried, as shares of what min-max needs: 4 % apart, where the error, flat at its least, moves by far less."""


def _mse_range(density: _Density, dtype: DType, symmetric: bool) -> tuple[float, float]:
    widest = activation_params(density.low, density.high, dtype, symmetric=symmetric)
    levels = widest.q_max - widest.q_min
    below = np.arange(levels + 1) if not symmetric else np.asarray([-widest.q_min])
    clipped = _clipping(density)
    best, least = (density.low, density.high), np.inf
    for share in _SCALES:
        scale = float(widest.scale) * share
        low, high = -below * scale, (levels - below) * scale
        inside = _rounding(density, scale)
        errors = inside(high) - inside(low) + clipped(high) + clipped(low, beyond=-1)
        found = int(errors.argmin())
        if errors[found] < least:
            least = float(errors[found])
            # a symmetric grid is given by the upper end, its lower has one step more
            ends = (-float(high[found]) if symmetric else float(low[found])), float(high[found])
            best = ends if share < 1 else best
    return best


def _rounding(density: _Density, scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """Integral of `(x - scale round(x / scale))^2 p(x)` from the lowest edge up to a multiple of `scale`."""
    whole = np.rint(density.edges / scale)
    primitive = whole * scale**3 / 12 + (density.edges - whole * scale) ** 3 / 3
    upto = np.concatenate([[0.0], np.cumsum(density.counts * np.diff(primitive))])

    def integral(ends: np.ndarray) -> np.ndarray:
        ends = np.clip(ends, density.edges[0], density.edges[-1])
        at = density.bin_of(ends)
        whole = np.rint(ends / scale)
        last = whole * scale**3 / 12 + (ends - whole * scale) ** 3 / 3 - primitive[at]
        result: np.ndarray = upto[at] + density.counts[at] * last
        return result

    return integral


def _clipping(density: _Density) -> Callable[..., np.ndarray]:
    """Integral of `(x - end)^2 p(x)` over what lies beyond `end`: above it, or below for `beyond=-1`."""
    moments = [density.counts * np.diff(density.edges ** (k + 1)) / (k + 1) for k in range(3)]
    upto = np.concatenate([np.zeros((3, 1)), np.cumsum(moments, axis=1)], axis=1)

    def integral(ends: np.ndarray, beyond: int = 1) -> np.ndarray:
        ends = np.clip(ends, density.edges[0], density.edges[-1])
        at = density.bin_of(ends)
        outside = upto[:, -1:] - upto[:, at + 1] if beyond > 0 else upto[:, at]
        edge = density.edges[at + 1] if beyond > 0 else density.edges[at]
        partial = density.counts[at] * np.abs(edge - ends) ** 3 / 3
        result: np.ndarray = outside[2] - 2 * ends * outside[1] + ends**2 * outside[0] + partial
        return result

    return integral


_WINDOWS = 96
"""Windows tried at each end and turn."""


def _entropy_range(density: _Density, dtype: DType, symmetric: bool) -> tuple[float, float]:
    params = activation_params(density.low, density.high, dtype, symmetric=symmetric)
    integers, zero, bins = params.q_max - params.q_min + 1, density.zero, len(density.counts)
    counts = density.counts.copy()
    # zero is exact on every grid, and rectified tensors are full of it: as many as its neighbours have
    counts[zero] = min(counts[zero], max(counts[max(zero - 1, 0) : zero].sum(), counts[zero + 1 : zero + 2].sum()))
    if symmetric:
        reach = max(zero, bins - zero)
        _, best = _least(((zero - r, zero + r) for r in _lengths(integers // 2, reach)), counts, integers)
        return float(best[0] - zero), float(best[1] - zero)
    start, stop = 0, bins
    for _ in range(2):
        _, (start, stop) = _least(
            ((start, s) for s in _lengths(max(start + integers, zero + 1), bins)), counts, integers
        )
        _, (start, stop) = _least(
            ((bins - s, stop) for s in _lengths(bins - min(stop - integers, zero), bins)), counts, integers
        )
    return (density.low if start == 0 else float(start - zero)), (density.high if stop == bins else float(stop - zero))


def _lengths(least: int, most: int) -> list[int]:
    """At most `_WINDOWS` lengths, the longest first."""
    return [int(n) for n in np.unique(np.linspace(min(least, most), most, _WINDOWS).round())[::-1]]


def _least(windows: Iterable[tuple[int, int]], counts: np.ndarray, integers: int) -> tuple[float, tuple[int, int]]:
    """The window with the least divergence, of equal ones the first."""
    return min(((_divergence(counts, *window, integers), window) for window in windows), key=lambda found: found[0])


def _divergence(counts: np.ndarray, start: int, stop: int, integers: int) -> float:
    """KL of the bins `start` to `stop`, which may reach beyond those that are counted, from their `integers` groups;
    infinite where what lies outside meets a group that has no mass."""
    first, last = max(start, 0), min(stop, len(counts))
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    group = (np.arange(first, last) - start) * integers // (stop - start)
    held = clipped > 0
    mass = np.bincount(group, inside, integers)
    filled = np.bincount(group, held, integers)
    spread = mass[group] / np.maximum(filled[group], 1)
    p, q = clipped[held], spread[held]
    if not q.all():
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


_SHARES = np.round(np.arange(1.0, 0.07, -0.04), 2)
_NEARBY = np.array([0.03, 0.02, 0.01, -0.01, -0.02, -0.03])
_AT_ONCE = 1 << 16


def mse_weight_bounds(
    weight: np.ndarray,
    *,
    dtype: DType = DType.INT8,
    bits: int | None = None,
    granularity: Granularity = Granularity.PER_CHANNEL,
    power: float = 2.0,
) -> np.ndarray:
    """Where the symmetric grid of `weight (O, ...)` should end so that `sum |w - Q(w)|^power` is least.

    `(O,)` float64 with one bound an output channel, `()` for one of the whole tensor; at most the largest magnitude,
    at least 8 % of it. `bits` narrows the integers within `dtype`.
    """
    rows = np.abs(weight.reshape(1 if granularity == Granularity.PER_TENSOR else len(weight), -1).astype(np.float32))
    largest = largest_integer(dtype, bits)
    count = max(_AT_ONCE // max(rows.shape[1], 1), 1)
    parts = [_row_bounds(rows[at : at + count], largest, power) for at in range(0, len(rows), count)]
    bounds: np.ndarray = np.concatenate(parts)
    return bounds.reshape(()) if granularity == Granularity.PER_TENSOR else bounds


def _row_bounds(rows: np.ndarray, largest: int, power: float) -> np.ndarray:
    """The best bound of each row of magnitudes, on a grid of 0.04 of the largest and then of 0.01 around it."""
    most = rows.max(axis=1).astype(np.float64)
    best, least = np.ones(len(rows)), np.full(len(rows), np.inf)

    def attempt(shares: np.ndarray) -> None:
        nonlocal best, least
        error = _row_errors(rows, most * shares, largest, power)
        better = error < least
        best, least = np.where(better, shares, best), np.where(better, error, least)

    for share in _SHARES:
        attempt(np.full(len(rows), share))
    middle = best
    for offset in _NEARBY:
        attempt(np.clip(middle + offset, _SHARES[-1], 1.0))
    bounds: np.ndarray = best * most
    return bounds


def _row_errors(rows: np.ndarray, bounds: np.ndarray, largest: int, power: float) -> np.ndarray:
    scale = np.where(bounds > 0, bounds / largest, 1.0).astype(np.float32)[:, None]
    error: np.ndarray = rows / scale
    rounded = np.rint(error)
    np.minimum(rounded, np.float32(largest), out=rounded)
    error -= rounded
    if power == 2:
        np.square(error, out=error)
    else:
        np.power(np.abs(error), np.float32(power), out=error)
    total: np.ndarray = error.sum(axis=1, dtype=np.float64) * scale[:, 0].astype(np.float64) ** power
    return total
