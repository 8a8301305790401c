"""The page's charts: a mark a layer, the page's own colours and font, nothing that points elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest

from toolchain.report.charts import COLOURS, draw_charts
from toolchain.report.figures import leaves_range


def marks(chart: str, colour: str) -> list[str]:
    """Tips of the bars drawn in `colour`, in order."""
    root = ElementTree.fromstring(chart)
    found = []
    for group in root.iter("g"):
        title, path = group.find("title"), group.find("path")
        if title is not None and path is not None and f"fill: var(--{colour})" in path.attrib["style"]:
            found.append(title.text or "")
    return found


def words(chart: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(chart).iter("text")]


def many(layers: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` layers with names of their own, no two alike in error."""
    made = []
    for index in range(count):
        layer = layers[1 + index % 3]
        sqnr_db = 20 + 10 * abs(index - count // 2) / count
        made.append({**layer, "name": f"blocks.{index}.{layer['name']}", "sqnr_db": sqnr_db})
    return made


def test_every_measured_layer_has_a_mark_and_the_worst_stands_out(facts: dict[str, Any]) -> None:
    charts = draw_charts(facts["layers"])
    assert marks(charts["error"], "main") == ["image (input): 49.0 dB", "stem (conv2d): 31.0 dB"]
    assert marks(charts["error"], "worst") == ["head (linear): 22.5 dB"]  # pool could not be measured
    assert "3 head, 22.5 dB" in words(charts["error"])
    assert len(marks(charts["cost"], "main")) == 3
    assert len(marks(charts["cost"], "second")) == 2
    assert len(marks(charts["range"], "band")) == 4
    assert marks(charts["range"], "worst") == ["head: holds -3 to 3, seen -4.5 to 2"]
    assert "3 head saw -4.5" in words(charts["range"])


@pytest.mark.parametrize("count", [10, 65, 121])
def test_any_depth_has_a_mark_a_layer_and_few_words(facts: dict[str, Any], count: int) -> None:
    layers = many(facts["layers"], count)
    charts = draw_charts(layers)
    assert len(marks(charts["error"], "main")) == count - 1
    assert len(marks(charts["error"], "worst")) == 1
    assert len(marks(charts["range"], "band")) == count
    assert len(marks(charts["range"], "worst")) == sum(map(leaves_range, layers))
    for chart in charts.values():
        named = [word for word in words(chart) if re.match(r"\d+ (blocks|…)", word) and not re.search(", | saw ", word)]
        assert named[0].startswith("0 ")
        assert 6 <= len(named) <= 10
        assert len(words(chart)) < 25


def test_columns_of_all_charts_lie_under_each_other(facts: dict[str, Any]) -> None:
    def left_edges(chart: str) -> set[str]:
        return set(re.findall(r'</title>\s*<path d="M ([\d.]+) ', chart))

    charts = draw_charts(many(facts["layers"], 30))
    assert left_edges(charts["error"]) == left_edges(charts["range"]) >= left_edges(charts["cost"])
    assert len(left_edges(charts["error"])) == 30


def test_longer_bars_are_better_layers(facts: dict[str, Any]) -> None:
    chart = draw_charts(facts["layers"])["error"]
    bars = re.findall(r"<title>(\w+)[^<]*</title>\s*<path d=\"M \S+ (\S+)  L \S+ \S+  L \S+ (\S+)", chart)
    height = {name: float(bottom) - float(top) for name, bottom, top in bars}
    assert height["stem"] / height["head"] == pytest.approx(31.0 / 22.5, rel=1e-4)
    assert height["image"] / height["stem"] == pytest.approx(40.0 / 31.0, rel=1e-4)  # cut at the axis's end


def test_charts_follow_the_page_and_point_nowhere(facts: dict[str, Any]) -> None:
    for chart in draw_charts(facts["layers"]).values():
        assert "#" not in chart  # no colour of its own, no reference
        assert "font-family" not in chart
        assert "DejaVu" not in chart
        assert not re.search(r"href|xmlns|\bid=|url\(|<use|<style|<metadata|//", chart)
        assert set(re.findall(r"var\(--(\w+)\)", chart)) <= set(COLOURS)


def test_the_same_facts_give_the_same_charts_whatever_the_process_draws_in(facts: dict[str, Any]) -> None:
    charts = draw_charts(facts["layers"])
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert draw_charts(facts["layers"]) == charts
        assert dict(matplotlib.rcParams) == before  # and the process keeps its own style


def test_names_are_text(facts: dict[str, Any]) -> None:
    nasty = ["$x^$", "</svg><script>", "a\x00\nb", "層.重み"]
    layers = [{**layer, "name": name} for layer, name in zip(facts["layers"], nasty, strict=True)]
    chart = draw_charts(layers)["range"]
    assert "<script" not in chart
    tips = marks(chart, "band")
    assert [tip.partition(": holds")[0] for tip in tips] == [*nasty[:2], "a\ufffd\ufffdb", nasty[3]]
    assert any("$x^$" in word for word in words(chart))


def test_what_nothing_was_measured_for_is_not_drawn(facts: dict[str, Any]) -> None:
    assert draw_charts([]) == {}
    without = [layer | {"macs": 0, "weight_bytes": 0, "sqnr_db": None} for layer in facts["layers"]]
    assert list(draw_charts(without)) == ["range"]


def test_one_layer_and_ranges_of_zero_are_drawn(facts: dict[str, Any]) -> None:
    zeros = dict.fromkeys(("range_low", "range_high", "seen_low", "seen_high"), 0.0)
    assert set(draw_charts([facts["layers"][1] | zeros])) >= {"error", "cost"}


def test_drawing_opens_no_window_and_loads_no_pyplot() -> None:
    code = "import sys, toolchain.report.charts; print('matplotlib.pyplot' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
