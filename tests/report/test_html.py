"""report.html: one file, no network, no script, and everything in it that the facts hold."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from deployments import GATES, make_small_facts, small_graph

from toolchain.errors import OptionError
from toolchain.graph import Source
from toolchain.report import render_html
from toolchain.report.figures import Scale, leaves_range, range_scale, top_db
from toolchain.targets import Gates

VOID = {"meta", "br", "wbr", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, text and attributes; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def test_the_page_holds_what_was_measured(facts: dict[str, Any]) -> None:
    text = Page(render_html(facts)).text
    for wanted in (
        "small for arm64",
        "6 gates held",
        "on 100 samples",
        "4.00× smaller",
        "2.00× faster",
        "2.00× slower",
    ):
        assert wanted in text
    for wanted in ("net.py:10", "conv2d", "22.5 dB", "costs accuracy", "93.5 %", "93 %", "-0.50 points"):
        assert wanted in text
    for file in facts["files"]:
        assert file["sha256"] in text
    for row in facts["device"]["savings"]:
        assert row["why"] in text


def test_a_layer_that_sees_values_outside_its_range_is_marked(facts: dict[str, Any]) -> None:
    rows = render_html(facts).split('<table class="layers">')[1].split("<tr")[2:6]
    assert ["bad" in row for row in rows] == [False, False, False, True]


def test_charts_name_layers_by_their_number_in_the_table(facts: dict[str, Any]) -> None:
    text = Page(render_html(facts)).text
    for label in ("0 image", "1 stem", "2 pool", "3 head"):
        assert text.count(label) >= 4  # under each chart, and in the table


def test_missed_gates_come_first() -> None:
    facts = make_small_facts(gates=Gates(**{**GATES.model_dump(), "sqnr_db": 40.0}))
    page = Page(render_html(facts)).text
    assert "3 gates missed" in page
    assert "Nothing was deployed" in page
    assert page.index(facts["missed"][0]) < page.index("Float against deployed")


def test_names_of_the_user_cannot_break_out() -> None:
    graph, nasty = small_graph(), "<script>alert('x')</script>"
    source = Source(nasty, f'{nasty}".py', 3)
    graph = graph.with_nodes(replace(node, name=nasty, source=source) for node in graph.nodes)
    page = render_html(make_small_facts(name=nasty, graph=graph))
    assert "<script" not in page
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]
    assert parsed.text.count(nasty) >= 4


def test_the_page_needs_no_network_and_no_script(facts: dict[str, Any]) -> None:
    page = render_html(facts)
    assert "//" not in page.replace("</", "")
    assert "xmlns" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(Page(page).tags)
    assert not [name for _, name, _ in Page(page).attributes if name in ("src", "href", "xlink:href")]


def test_the_same_facts_give_the_same_bytes_also_from_json(facts: dict[str, Any]) -> None:
    page = render_html(facts)
    assert render_html(facts) == page
    assert render_html(json.loads(json.dumps(facts))) == page


def test_rendering_leaves_the_facts_as_they_were(facts: dict[str, Any]) -> None:
    before = copy.deepcopy(facts)
    render_html(facts)
    assert facts == before


def test_facts_of_another_schema_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="schema 99"):
        render_html({**facts, "schema": 99})


def test_a_deployment_without_comparisons_still_renders() -> None:
    facts = make_small_facts(baseline=())
    unmeasured = dict.fromkeys(("sqnr_db", "range_low", "range_high", "seen_low", "seen_high"))
    unmeasured |= {"macs": 0, "weight_bytes": 0, "op_steps": {}}
    facts["layers"] = [layer | unmeasured for layer in facts["layers"]]
    facts |= {"agreements": [], "runtimes": [], "score_name": None, "float_score": None, "stages": []}
    page = Page(render_html(facts))
    assert "figure" not in page.tags  # nothing to draw
    assert "From input to output" not in page.text


def test_a_hundred_layers_stay_small(facts: dict[str, Any]) -> None:
    page = render_html({**facts, "layers": facts["layers"] * 30})
    assert len(page.encode()) < 400_000


def test_importing_the_report_loads_neither_torch_nor_matplotlib() -> None:
    code = "import sys, toolchain.report; print({'torch', 'matplotlib', 'onnxruntime'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_the_scale_keeps_order_and_ends() -> None:
    scale = Scale([-40.0, 0.5, 1000.0])
    values = [-40.0, -1.0, 0.0, 0.5, 10.0, 1000.0]
    places = [scale(value) for value in values]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0.0, 1.0)
    assert 0.0 in scale.ticks()
    assert all(-40 <= tick <= 1000 for tick in scale.ticks())


def test_a_scale_of_zeros_divides_by_nothing() -> None:
    assert range_scale([])(0.0) == 0.0


def test_bars_end_above_the_best_op_whatever_the_input(facts: dict[str, Any]) -> None:
    assert top_db(facts["layers"]) == 40.0  # 31 dB is the best op, the input's 49 dB does not count


@pytest.mark.parametrize(
    ("seen", "outside"),
    [((0.0, 2.55), False), ((0.0, 2.554), False), ((0.0, 2.57), True), ((-0.1, 1.0), True)],
)
def test_half_a_step_outside_is_rounding(seen: tuple[float, float], outside: bool) -> None:
    layer = {"range_low": 0.0, "range_high": 2.55, "seen_low": seen[0], "seen_high": seen[1]}
    assert leaves_range(layer) is outside
