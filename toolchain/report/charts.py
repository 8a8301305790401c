"""The page's charts: drawn by matplotlib, then made part of the page as SVG in the page's colours and font.

Layers run from the network's input (left) to its output. Importing this module imports matplotlib.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from toolchain.report.figures import largest, leaves_range, range_scale, top_db, worst_layer
from toolchain.report.units import format_bytes, format_count, format_db, format_real

Layer: TypeAlias = Mapping[str, Any]
Spots: TypeAlias = Sequence[tuple[int, Layer]]

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1096, 62, 46, 4, 24
"""Pixels: of the picture, and of the margins around its axes."""

TEXT_PX = 12

_PAGE = ("ink", "muted", "line", "main", "second", "band", "worst")
CAUSES = ("channels", "outliers", "bias", "weights", "result", "saturation", "shared")
COLOURS = {name: f"#{number:06x}" for number, name in enumerate((*_PAGE, *CAUSES), start=1)}
"""What matplotlib draws in stands for the page's colours of that name, which follow light and dark."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same layout on every machine
    "font.size": TEXT_PX,
    "text.color": COLOURS["ink"],
    "text.parse_math": False,
    "axes.edgecolor": COLOURS["muted"],
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.xmargin": 0,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 1,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.bottom": False,
    "ytick.left": False,
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "svg.fonttype": "none",
    "svg.hashsalt": "edge-toolchain",
}
_TIP = "tip: "
_HEADROOM = 1.2
"""Axes end this much beyond their tallest bar, which leaves room for names."""


def draw_charts(layers: Sequence[Layer]) -> dict[str, Markup]:
    """An `<svg>` each for `error`, `cost` and `range`, without those that nothing was measured for."""
    layers = [{**layer, "name": printable(layer["name"])} for layer in layers]
    # whatever style the process draws its own pictures in, the same facts give the same page
    with style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser's fonts will have it
        return {
            name: draw(layers)
            for name, draw, keys in (
                ("error", _draw_errors, ("sqnr_db",)),
                ("cost", _draw_costs, ("macs", "weight_bytes")),
                ("range", _draw_ranges, ("range_high", "seen_high")),
            )
            if any(layer[key] for layer in layers for key in keys)
        }


def _draw_errors(layers: Sequence[Layer]) -> Markup:
    """SQNR of every tensor, the worst one marked."""
    figure, (axes,) = make_sheet(layers, 170)
    worst, top = worst_layer(layers), top_db(layers)
    found = [(index, layer) for index, layer in enumerate(layers) if layer["sqnr_db"] is not None]
    heights = {index: min(max(layer["sqnr_db"], 0.5), top) for index, layer in found}
    bars = [
        (index, 0.0, heights[index], "worst" if layer is worst else "main", _error_tip(layer)) for index, layer in found
    ]
    draw_bars(axes, len(layers), bars)
    axes.set_ylim(0, top * _HEADROOM)
    ticks = range(0, int(top) + 1, 10 if top <= 40 else 20)
    axes.set_yticks(ticks, [f"{db} dB" for db in ticks])
    ranked = sorted(found, key=lambda spot: float(spot[1]["sqnr_db"]))
    for index, layer in keep_apart(ranked[: name_few(layers)], len(layers)):
        colour = "worst" if layer is worst else "ink"
        text = f"{number_and_name(index, layer, 18)}, {format_db(layer['sqnr_db'])}"
        point_at(axes, (index, heights[index], len(layers)), text, colour)
    return inline_svg(figure, "SQNR of each layer")


def _draw_costs(layers: Sequence[Layer]) -> Markup:
    """Multiply-adds upwards, bytes of weights downwards."""
    figure, (above, below) = make_sheet(layers, 240, rows=2)
    most = largest(layers, "weight_bytes")
    divisor, unit = next((s, u) for s, u in ((2**20, "MiB"), (2**10, "KiB"), (1, "B")) if most >= s)
    sides = (
        (above, "macs", 1, "main", format_count, "multiply-adds", False),
        (below, "weight_bytes", divisor, "second", format_bytes, "of weights", True),
    )
    for axes, key, size, colour, text, words, is_down in sides:
        found = [(index, layer) for index, layer in enumerate(layers) if layer[key]]
        tips = [f"{layer['name']} ({layer['op']}): {text(layer[key])} {words}" for _, layer in found]
        bars = [(i, 0.0, layer[key] / size, colour, tip) for (i, layer), tip in zip(found, tips, strict=True)]
        draw_bars(axes, len(layers), bars)
        end = _HEADROOM * largest(layers, key) / size
        axes.set_ylim(*((end, 0) if is_down else (0, end)))
        axes.yaxis.set_major_locator(MaxNLocator(3, prune="upper"))
        ranked = sorted(found, key=lambda spot: -spot[1][key])
        large = [spot for spot in ranked[: name_few(layers)] if spot[1][key] > ranked[0][1][key] / 2]
        for index, layer in keep_apart(large, len(layers)):
            label = f"{number_and_name(index, layer, 18)}, {text(layer[key])}"
            point_at(axes, (index, layer[key] / size, len(layers)), label, "ink", is_down=is_down)
    above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} {unit}" if value else ""))
    below.spines["bottom"].set_visible(False)
    return inline_svg(figure, "multiply-adds and weight bytes of each layer")


def _draw_ranges(layers: Sequence[Layer]) -> Markup:
    """What each tensor's integers can hold, and what was seen inside or outside."""
    figure, (axes,) = make_sheet(layers, 220)
    scale = range_scale(layers)
    axes.set_yscale("asinh", linear_width=scale.unit)
    draw_bars(axes, len(layers), _range_bars(layers))
    axes.set_ylim(scale.value(-0.04), scale.value(_HEADROOM))
    axes.set_yticks(scale.ticks(), [format_real(value) for value in scale.ticks()])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.axhline(0, color=COLOURS["muted"], linewidth=1)
    axes.spines["bottom"].set_visible(False)
    outside = [spot for spot in enumerate(layers) if leaves_range(spot[1])]
    for index, layer in keep_apart(sorted(outside, key=lambda spot: -_excess(spot[1])), len(layers)):
        text = f"{number_and_name(index, layer, 18)} saw {format_real(_furthest(layer))}"
        point_at(axes, (index, layer["seen_high"], len(layers)), text, "worst")
    held = [spot for spot in enumerate(layers) if spot[1]["range_high"] is not None and not outside]
    widest = sorted(held, key=lambda spot: -_width(spot[1]))[: name_few(layers)]
    for index, layer in keep_apart(widest, len(layers)):
        text = f"{number_and_name(index, layer, 14)}, {_range_text(layer, 'range')}"
        point_at(axes, (index, layer["range_high"], len(layers)), text, "ink")
    return inline_svg(figure, "range of each activation")


def _range_bars(layers: Sequence[Layer]) -> list[tuple[int, float, float, str, str]]:
    bars = []
    for index, layer in enumerate(layers):
        for key, colour in (("range", "band"), ("seen", "worst" if leaves_range(layer) else "main")):
            low, high = layer[f"{key}_low"], layer[f"{key}_high"]
            if low is not None and high is not None:
                bars.append((index, low, high - low, colour, _range_tip(layer)))
    return bars


def make_sheet(layers: Sequence[Layer], height: int, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A picture whose axes lie at the same place in every chart, a layer at each whole number."""
    count = max(len(layers), 1)
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, facecolor="none")
    FigureCanvasSVG(figure)
    margins = {"left": LEFT / WIDTH, "right": 1 - RIGHT / WIDTH, "hspace": 0}
    margins |= {"top": 1 - TOP / height, "bottom": BOTTOM / height}
    found = figure.subplots(rows, sharex=True, squeeze=False, gridspec_kw=margins)
    axes: list[Axes] = list(found[:, 0])
    for one in axes:
        one.set_facecolor("none")
    steps = (first * 10**power for power in range(12) for first in (1, 2, 5))
    step = next(step for step in steps if count <= 10 * step)
    room = int(step * (WIDTH - LEFT - RIGHT) / count / 6) - 3  # letters beside a number, 6 pixels each
    ticks = list(enumerate(layers))[::step]
    axes[-1].set_xlim(-0.5, count - 0.5)
    places, named = [index for index, _ in ticks], [number_and_name(i, layer, min(room, 22)) for i, layer in ticks]
    axes[-1].set_xticks(places, named)
    return figure, axes


def draw_bars(axes: Axes, count: int, bars: Sequence[tuple[int, float, float, str, str]]) -> None:
    """A bar for each (layer, start, length, colour, tip)."""
    if not bars:
        return
    index, start, length, colour, tips = zip(*bars, strict=True)
    width = min(0.8, 48 * count / (WIDTH - LEFT - RIGHT))
    drawn = axes.bar(index, length, width, start, color=[COLOURS[name] for name in colour], linewidth=0)
    for patch, tip in zip(drawn, tips, strict=True):
        patch.set_gid(_TIP + tip)


def point_at(axes: Axes, place: tuple[int, float, int], text: str, colour: str, *, is_down: bool = False) -> None:
    """Text in the headroom, a line from it to the end of a bar: `place` is (layer, end, count of layers)."""
    index, value, count = place
    side = "left" if index < 0.7 * count else "right"
    axes.annotate(
        text,
        (index, value),
        (index, 0.02 if is_down else 0.98),
        textcoords=axes.get_xaxis_transform(),
        color=COLOURS[colour],
        ha=side,
        va="bottom" if is_down else "top",
        arrowprops={
            "arrowstyle": "-",
            "color": COLOURS["muted" if colour == "ink" else colour],
            "linewidth": 1,
            "shrinkA": 0,
            "shrinkB": 0,
            "relpos": (0 if side == "left" else 1, 1 if is_down else 0),
        },
    )


def keep_apart(ranked: Iterable[tuple[int, Layer]], count: int) -> Spots:
    """Each of `ranked` that lies so far from those before it that their names cannot meet."""
    kept: list[tuple[int, Layer]] = []
    for index, layer in ranked:
        if all(abs(index - other) > 0.42 * count for other, _ in kept):
            kept.append((index, layer))
    return kept


def name_few(layers: Sequence[Layer]) -> int:
    """How many of the foremost layers may be named."""
    return max(1, len(layers) // 8)


def inline_svg(figure: Figure, label: str) -> Markup:
    """The figure as an element of a page: nothing that points elsewhere, no colour or font of its own."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue().decode())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib.pop("clip-path", None)
        tip = element.attrib.pop("id", "")
        if tip.startswith(_TIP):
            element.insert(0, _element("title", tip.removeprefix(_TIP)))
        if "style" in element.attrib:
            element.attrib["style"] = _page_style(element.attrib["style"])
    for child in list(root):
        if child.tag in ("metadata", "defs"):
            root.remove(child)
    size = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": size, "role": "img", "aria-label": label})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _element(tag: str, text: str) -> ElementTree.Element:
    element = ElementTree.Element(tag)
    element.text = text
    return element


def _page_style(text: str) -> str:
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", re.sub(r"font-family: [^;]*;? ?", "", text))


def _error_tip(layer: Layer) -> str:
    return f"{layer['name']} ({layer['op']}): {format_db(layer['sqnr_db'])}"


def _range_tip(layer: Layer) -> str:
    return f"{layer['name']}: holds {_range_text(layer, 'range')}, seen {_range_text(layer, 'seen')}"


def _range_text(layer: Layer, key: str) -> str:
    return f"{format_real(layer[f'{key}_low'])} to {format_real(layer[f'{key}_high'])}"


def _width(layer: Layer) -> float:
    return float(layer["range_high"] - layer["range_low"])


def _excess(layer: Layer) -> float:
    """How far outside the range a value was seen, in widths of the range."""
    below, above = layer["range_low"] - layer["seen_low"], layer["seen_high"] - layer["range_high"]
    return float(max(below, above)) / (_width(layer) or 1.0)


def _furthest(layer: Layer) -> float:
    """The value seen furthest outside the range."""
    below, above = layer["range_low"] - layer["seen_low"], layer["seen_high"] - layer["range_high"]
    return float(layer["seen_low"] if below > above else layer["seen_high"])


def printable(name: str) -> str:
    """Without what XML cannot hold."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def number_and_name(index: int, layer: Layer, length: int) -> str:
    """A layer's number, which finds it in the table, and as much of its name as there is room for."""
    return f"{index} {_short(layer['name'], length)}"


def _short(name: str, length: int) -> str:
    """The end of a module path, which tells layers apart: whole names of it if they fit."""
    if len(name) <= length:
        return name
    end = name[1 - length :]
    whole = end.partition(".")[2]
    return f"…{whole or end}"
