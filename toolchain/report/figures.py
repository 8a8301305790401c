"""What stands out among the layers, and the bars inside the rows of the page's table.

Positions along a row are percents of its width: bars stretch with the page while text keeps its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import asinh, ceil, sinh
from statistics import median
from typing import Any, TypeAlias

Layer: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """A rectangle: `x` and `width` in percent; `kind` is its style class."""

    x: float
    width: float
    kind: str


@dataclass(frozen=True)
class Strip:
    """One row's bars along a horizontal scale; `zero` is where 0 lies on it, if it is to be marked."""

    bars: tuple[Bar, ...]
    zero: float | None = None


class Scale:
    """Values to [0, 1], linear near zero, logarithmic beyond: tensors of any size share an axis."""

    def __init__(self, bounds: Iterable[float]) -> None:
        found = [0.0, *bounds]
        self.low, self.high = min(found), max(found)
        sizes = [abs(value) for value in found if value]
        self.unit = median(sizes) / 2 if sizes else 1.0
        self._start = asinh(self.low / self.unit)
        self._span = asinh(self.high / self.unit) - self._start or 1.0

    def __call__(self, value: float) -> float:
        return min(max((asinh(value / self.unit) - self._start) / self._span, 0.0), 1.0)

    def value(self, share: float) -> float:
        """What lies at `share` of the axis, also beyond its ends."""
        return self.unit * sinh(self._start + share * self._span)

    def ticks(self) -> list[float]:
        """Zero and round values that lie apart from it and from each other."""
        powers = [10.0**power for power in range(12, -13, -1)]
        rounds = [sign * first * power for first in (1, 5, 2) for power in powers for sign in (1, -1)]
        kept = [0.0]
        for value in rounds:
            is_apart = all(abs(self(value) - self(other)) > 0.12 for other in kept)
            if self.low <= value <= self.high and is_apart:
                kept.append(value)
        return sorted(kept)


def range_scale(layers: Sequence[Layer]) -> Scale:
    """The scale all ranges share."""
    keys = ("range_low", "range_high", "seen_low", "seen_high")
    return Scale(layer[key] for layer in layers for key in keys if layer[key] is not None)


def worst_layer(layers: Sequence[Layer]) -> Layer | None:
    """The layer with the lowest SQNR, the first of several."""
    measured = [layer for layer in layers if layer["sqnr_db"] is not None]
    return min(measured, key=lambda layer: layer["sqnr_db"], default=None)


def top_db(layers: Sequence[Layer]) -> float:
    """Where bars of SQNR end: round dB above every op's, at most 60, where nothing is left to see."""
    found = [layer["sqnr_db"] for layer in layers if layer["sqnr_db"] is not None and layer["op"] != "input"]
    return min(max(10.0 * ceil(max(found, default=0.0) / 10), 20.0), 60.0)


def error_strip(layer: Layer, worst: Layer | None, top: float) -> Strip:
    """SQNR, up to `top` dB."""
    if layer["sqnr_db"] is None:
        return Strip(())
    kind = "worst" if layer is worst else "main"
    return Strip((Bar(0, _percent(_db_share(layer["sqnr_db"], top)), kind),))


def amount_strip(layer: Layer, key: str, most: float, kind: str) -> Strip:
    """A bar for `layer[key]`, as long as the whole strip at `most`."""
    return Strip((Bar(0, _percent(layer[key] / most), kind),) if layer[key] else ())


def range_strip(layer: Layer, scale: Scale) -> Strip:
    """What the tensor's integers can hold, and what was seen inside."""
    bars = []
    for kind, low, high in _extents(layer):
        start = _percent(scale(low))
        bars.append(Bar(start, max(_percent(scale(high)) - start, 0.5), kind))
    return Strip(tuple(bars), _percent(scale(0.0)))


def largest(layers: Sequence[Layer], key: str) -> float:
    """The largest value under `key`, 1 where all are zero: something to divide by."""
    return max((layer[key] for layer in layers), default=0) or 1


def leaves_range(layer: Layer) -> bool:
    """Whether a value was seen more than half a quantization step outside what the integers can hold."""
    if None in (layer["range_low"], layer["range_high"], layer["seen_low"], layer["seen_high"]):
        return False
    # 255 steps span the range; a wider type only has smaller ones
    slack = (layer["range_high"] - layer["range_low"]) / 255 / 2
    below, above = layer["range_low"] - layer["seen_low"], layer["seen_high"] - layer["range_high"]
    return bool(max(below, above) > slack)


def _extents(layer: Layer) -> list[tuple[str, float, float]]:
    found = []
    if layer["range_low"] is not None and layer["range_high"] is not None:
        found.append(("band", layer["range_low"], layer["range_high"]))
    if layer["seen_low"] is not None and layer["seen_high"] is not None:
        found.append(("worst" if leaves_range(layer) else "main", layer["seen_low"], layer["seen_high"]))
    return found


def _db_share(db: float, top: float) -> float:
    return min(max(db, 0.5) / top, 1.0)


def _percent(share: float) -> float:
    return round(100 * share, 2)
