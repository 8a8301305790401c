"""A diagnosis as facts, as a page and in the terminal."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from deployments import make_small_facts, small_graph, small_model
from rich.console import Console

from toolchain.diagnosis.causes import Cause
from toolchain.diagnosis.layers import diagnose_graph
from toolchain.report import render_html
from toolchain.report.charts import CAUSES
from toolchain.report.diagnosis import colour_of, diagnosis_facts, evidence, page_rows, worst_layers
from toolchain.report.diagnosis_terminal import print_diagnosis
from toolchain.report.html import render_diagnosis


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    model = small_model(small_graph())
    array = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    return diagnosis_facts(diagnose_graph(model.quantized, [(array,)]), model.graph)


def whole(found: dict[str, Any]) -> dict[str, Any]:
    named = {"model": {"name": "small"}, "target": {"name": "arm64"}, "recipe": "default"}
    return {**named, "versions": {"toolchain": None, "torch": "2"}, "diagnosis": found}


def test_facts_are_json_and_hold_every_layer(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [layer["tensor"] for layer in found["layers"]] == ["image", "stem", "pool", "head"]
    assert [layer["number"] for layer in found["layers"]] == [0, 1, 2, 3]
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1)
    assert sum(row["share"] for row in found["causes"]) == pytest.approx(1)
    assert found["layers"][1]["source"] == {"module": "stem", "file": "net.py", "line": 10}
    # its ranges are (-1, 1), far below what a convolution of 27 normal weights gives
    assert found["layers"][1]["cause"] == Cause.SATURATION


def test_every_cause_has_a_colour_and_words(found):
    assert {colour_of(cause) for cause in Cause} == set(CAUSES)
    measures = dict.fromkeys(found["layers"][1]["measures"], 4.0) | {"result_error": 5.0}
    for cause in Cause:
        assert evidence({"cause": cause.value, "measures": measures})
    assert evidence({"cause": None, "measures": measures}) == ""


def test_rows_are_the_worst_layers_and_bars_relative_to_the_first(found):
    rows = page_rows(found)
    shares = [row["layer"]["share"] for row in rows]
    assert shares == sorted(shares, reverse=True) and len(rows) == len(worst_layers(found))
    assert rows[0]["strip"].bars[0].width == 100


def test_pages_show_causes_advice_and_a_histogram_of_the_worst(found):
    page = render_diagnosis(whole(found))
    assert page == render_diagnosis(whole(found)), "the same facts give the same bytes"
    for words in ("saturation", "wider ranges", "net.py:10", "histogram of", "share of the outputs"):
        assert words in page
    assert "://" not in page and "<script" not in page
    report = render_html({**make_small_facts(), "diagnosis": found})
    assert "Where the error comes from" in report and "saturation" in report


def test_a_report_without_a_diagnosis_is_a_page_still(facts):
    assert facts["diagnosis"] is None
    stored = {key: value for key, value in facts.items() if key != "diagnosis"}
    for given in (facts, stored, {**facts, "diagnosis": {**_nothing()}}):
        assert "Where the error comes from" not in render_html(given)


def _nothing() -> dict[str, Any]:
    return {"samples": 4, "sqnr_db": 300.0, "explained": None, "activations": 2, "causes": [], "layers": []}


def test_names_that_are_no_xml_do_not_break_the_pictures(found):
    odd = [{**layer, "name": f"a\x00<b>&{layer['name']}"} for layer in found["layers"]]
    page = render_diagnosis(whole({**found, "layers": odd}))
    assert "<b>&" not in page


def test_the_terminal_says_layer_cause_and_advice(found):
    screen = Console(file=io.StringIO(), width=140)
    print_diagnosis(whole(found), screen)
    text = screen.file.getvalue()
    for words in ("small for arm64", "stem (conv2d)", "saturation", "wider ranges", "4 samples"):
        assert words in text
    narrow = Console(file=io.StringIO(), width=60)
    print_diagnosis(whole(found), narrow)
