"""The pictures of a diagnosis: a bar a layer, and histograms of the worst layers over their grids."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from toolchain.report.charts import (
    COLOURS,
    STYLE,
    draw_bars,
    inline_svg,
    keep_apart,
    make_sheet,
    name_few,
    number_and_name,
    point_at,
    printable,
)
from toolchain.report.diagnosis import colour_of, worst_layers
from toolchain.report.units import format_db, format_real, format_share

PICTURES = 5
_WIDTH, _HEIGHT = 340, 130


def draw_diagnosis(facts: Mapping[str, Any]) -> dict[str, Any]:
    """`shares`: an `<svg>` of all layers; `histograms`: (layer, `<svg>`) of the worst that have one."""
    layers = [{**layer, "name": printable(layer["name"])} for layer in facts["layers"]]
    with style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        pictured = [layer for layer in worst_layers(facts, PICTURES) if layer["histogram"] is not None]
        return {
            "shares": _draw_shares(layers, facts["activations"]),
            "histograms": [(layer, _draw_histogram(layer)) for layer in pictured],
        }


def _draw_shares(layers: Sequence[Mapping[str, Any]], count: int) -> Markup:
    """Share of the outputs' error that each layer brings, in the colour of its cause."""
    named: list[Mapping[str, Any]] = [{"name": ""} for _ in range(count)]
    for layer in layers:
        named[layer["number"]] = layer
    figure, (axes,) = make_sheet(named, 190)
    bars = [(one["number"], 0.0, one["share"], colour_of(one["cause"]), _tip(one)) for one in layers]
    draw_bars(axes, count, bars)
    top = max((layer["share"] for layer in layers), default=0.0) or 1.0
    axes.set_ylim(0, 1.2 * top)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if top <= 5 * step or step == 0.5)
    ticks = np.arange(0, top + step / 2, step)
    axes.set_yticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    ranked = sorted(((one["number"], one) for one in layers), key=lambda spot: -spot[1]["share"])
    for index, layer in keep_apart(ranked[: name_few(named)], count):
        text = f"{number_and_name(index, layer, 18)}, {format_share(round(layer['share'], 3))}"
        point_at(axes, (index, layer["share"], count), text, "ink")
    return inline_svg(figure, "share of the outputs' error that each layer brings")


def _draw_histogram(layer: Mapping[str, Any]) -> Markup:
    """How often each value was seen, on a logarithmic scale, over the range that the grid holds."""
    found = layer["histogram"]
    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72, facecolor="none")
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.02, 0.2, 0.96, 0.72))
    axes.set_facecolor("none")
    edges = np.linspace(found["low"], found["high"], len(found["counts"]) + 1)
    axes.axvspan(found["grid_low"], found["grid_high"], color=COLOURS["band"], linewidth=0)
    counts = np.asarray(found["counts"], np.float64)
    axes.bar(edges[:-1], np.log10(1 + counts), np.diff(edges), align="edge", color=COLOURS[colour_of(layer["cause"])])
    axes.set_yticks([])
    axes.set_ylim(0, 1.05 * max(float(np.log10(1 + counts).max()), 1.0))
    margin = 0.12 * (found["high"] - found["low"])
    shows_zero = found["low"] + margin < 0 < found["high"] - margin
    ticks = [found["low"], *([0.0] if shows_zero else []), found["high"]]
    axes.set_xticks(ticks, [format_real(tick) for tick in ticks])
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    return inline_svg(figure, f"histogram of {layer['name']}")


def _tip(layer: Mapping[str, Any]) -> str:
    share = format_share(round(layer["share"], 4))
    return (
        f"{layer['name']} ({layer['op']}): {share}, {layer['cause'] or 'no error'}, adds {format_db(layer['added_db'])}"
    )
