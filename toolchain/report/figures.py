"""Geometry of the page's pictures: from facts to rectangles, which the template draws as inline SVG.

Horizontal positions are percents of the width there is, heights are pixels: bars stretch with the page while
text keeps its size, legible on a phone and for a hundred layers. Drawn so instead of with matplotlib, whose
pictures shrink their text, keep one colour scheme, and take 1.5 s where these take 0.01 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import asinh, ceil
from statistics import median
from typing import Any, TypeAlias

from toolchain.report.units import format_bytes, format_count, format_db, format_real

Layer: TypeAlias = Mapping[str, Any]

HEIGHT = 140


@dataclass(frozen=True)
class Bar:
    """A rectangle: `x` and `width` in percent, `y` and `height` in pixels; `kind` is its style class."""

    x: float
    width: float
    kind: str
    y: float = 0.0
    height: float = 0.0
    tip: str = ""


@dataclass(frozen=True)
class Tick:
    """A line across a chart at `y` pixels."""

    y: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Columns from the network's input (left) to its output."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    height: int = HEIGHT


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
        self._unit = median(sizes) / 2 if sizes else 1.0
        self._start = asinh(self.low / self._unit)
        self._span = asinh(self.high / self._unit) - self._start or 1.0

    def __call__(self, value: float) -> float:
        return min(max((asinh(value / self._unit) - self._start) / self._span, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Zero and round values that lie apart from it and from each other."""
        rounds = [sign * 10.0**power for power in range(12, -13, -1) for sign in (1, -1)]
        kept = [0.0]
        for value in rounds:
            is_apart = all(abs(self(value) - self(other)) > 0.16 for other in kept)
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


def error_chart(layers: Sequence[Layer]) -> Chart:
    """SQNR of every tensor, the worst one marked."""
    worst, top = worst_layer(layers), top_db(layers)
    bars = []
    for index, layer in enumerate(layers):
        if layer["sqnr_db"] is not None:
            height = HEIGHT * _db_share(layer["sqnr_db"], top)
            tip = f"{layer['name']} ({layer['op']}): {format_db(layer['sqnr_db'])}"
            kind = "worst" if layer is worst else "main"
            bars.append(_column((index, len(layers)), HEIGHT - height, height, kind, tip))
    step = 10 if top <= 40 else 20
    ticks = (Tick(HEIGHT * (1 - db / top), f"{db} dB") for db in range(0, int(top) + 1, step))
    return Chart(tuple(bars), tuple(ticks))


def cost_chart(layers: Sequence[Layer]) -> Chart:
    """Multiply-adds upwards, bytes of weights downwards."""
    middle = HEIGHT / 2
    most_macs, most_bytes = largest(layers, "macs"), largest(layers, "weight_bytes")
    bars = []
    for index, layer in enumerate(layers):
        up, down = middle * layer["macs"] / most_macs, middle * layer["weight_bytes"] / most_bytes
        name = f"{layer['name']} ({layer['op']})"
        if up:
            tip = f"{name}: {format_count(layer['macs'])} multiply-adds"
            bars.append(_column((index, len(layers)), middle - up, up, "main", tip))
        if down:
            tip = f"{name}: {format_bytes(layer['weight_bytes'])} of weights"
            bars.append(_column((index, len(layers)), middle, down, "second", tip))
    return Chart(tuple(bars), (Tick(middle, "0"),))


def range_chart(layers: Sequence[Layer], scale: Scale) -> Chart:
    """What each tensor's integers can hold, and what was seen inside."""
    bars = []
    for index, layer in enumerate(layers):
        for kind, low, high in _extents(layer):
            top, bottom = HEIGHT * (1 - scale(high)), HEIGHT * (1 - scale(low))
            tip = f"{layer['name']}: {_range_text(layer)}"
            bars.append(_column((index, len(layers)), top, max(bottom - top, 1.0), kind, tip))
    return Chart(tuple(bars), tuple(Tick(HEIGHT * (1 - scale(v)), format_real(v)) for v in scale.ticks()))


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


def _range_text(layer: Layer) -> str:
    held = f"{format_real(layer['range_low'])} to {format_real(layer['range_high'])}"
    return f"holds {held}, seen {format_real(layer['seen_low'])} to {format_real(layer['seen_high'])}"


def _db_share(db: float, top: float) -> float:
    return min(max(db, 0.5) / top, 1.0)


def _column(place: tuple[int, int], y: float, height: float, kind: str, tip: str) -> Bar:
    """The bar of layer `place[0]` of `place[1]`."""
    pitch = 100 / max(place[1], 4)
    x, width = round((place[0] + 0.1) * pitch, 3), round(0.8 * pitch, 3)
    return Bar(x, width, kind, round(y, 2), round(height, 2), tip)


def _percent(share: float) -> float:
    return round(100 * share, 2)
