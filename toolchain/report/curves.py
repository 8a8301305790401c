"""Validation curves of stages that train: nearness to the teacher, or right classes, epoch by epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib import style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from toolchain.report.charts import BOTTOM, COLOURS, LEFT, RIGHT, STYLE, TOP, WIDTH, inline_svg
from toolchain.report.units import format_db, format_share

HEIGHT = 170


_TELL: dict[str, Callable[[float], str]] = {"sqnr_db": format_db, "accuracy": format_share}


@dataclass(frozen=True)
class Curve:
    """A picture, and a line that says what it shows."""

    title: str
    text: str
    picture: Markup


def find_curves(stages: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """A curve for each of `stages` (as in report.json) that validated itself between epochs."""
    found = [stage for stage in stages if len(stage["facts"].get("validation") or ()) > 1]
    return [curve for stage in found if (curve := _curve(stage["name"], stage["facts"])) is not None]


def _curve(name: str, facts: Mapping[str, Any]) -> Curve | None:
    points = facts["validation"]
    key, words = next(
        (
            (key, words)
            for key, words in (
                ("score", "your score"),
                ("accuracy", "right classes"),
                ("sqnr_db", "SQNR of the outputs"),
            )
            if all(point.get(key) is not None for point in points)
        ),
        (None, ""),
    )
    if key is None:
        return None
    tell = _TELL.get(key, "{:.4g}".format)
    values = [float(point[key]) for point in points]
    epochs = [int(point["epoch"]) for point in points]
    kept = epochs.index(facts["kept_epoch"])
    text = (
        f"{words} on {facts['validated_on']}, from {tell(values[0])} to {tell(values[kept])} after epoch {epochs[kept]}"
    )
    return Curve(f"Training of {name}", text, _draw(epochs, values, kept, tell, f"{words}, epoch by epoch"))


def _draw(
    epochs: Sequence[int], values: Sequence[float], kept: int, tell: Callable[[float], str], label: str
) -> Markup:
    with style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, facecolor="none")
        FigureCanvasSVG(figure)
        figure.subplots_adjust(LEFT / WIDTH, BOTTOM / HEIGHT, 1 - RIGHT / WIDTH, 1 - TOP / HEIGHT)
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        axes.plot(epochs, values, color=COLOURS["main"], linewidth=1.5)
        marks = zip(epochs, values, strict=True)
        for place, (epoch, value) in enumerate(marks):
            # a line of no length with round ends: a marker would be an element that points to another
            colour = COLOURS["second" if place == kept else "main"]
            (mark,) = axes.plot([epoch] * 2, [value] * 2, color=colour, linewidth=7, solid_capstyle="round")
            mark.set_gid(f"tip: epoch {epoch}: {tell(value)}")
        axes.margins(0.02, 0.15)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"epoch {value:.0f}"))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tell(value)))
        return inline_svg(figure, label)
