"""Facts: what report.json holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from deployments import GATES, make_small_facts, small_validation

from toolchain.quantization import Granularity
from toolchain.report.plain import to_plain
from toolchain.targets import Gates


def test_facts_survive_json_and_hold_neither_nan_nor_infinity(facts: dict[str, Any]) -> None:
    text = json.dumps(facts, allow_nan=False)
    assert json.loads(text) == facts
    pool = facts["layers"][2]
    assert pool["name"] == "pool"
    assert pool["sqnr_db"] is None  # was NaN


def test_equal_deployments_give_equal_text() -> None:
    assert json.dumps(make_small_facts()) == json.dumps(make_small_facts())


def test_options_come_out_plain_and_in_order(facts: dict[str, Any]) -> None:
    options = facts["stages"][0]["options"]
    assert list(options) == ["a", "loss", "scheme", "z"]
    assert options["a"] == 0.5
    assert options["loss"] is None
    assert options["scheme"]["weight_granularity"] == "per_channel"


def test_files_know_their_float_counterparts_by_suffix(facts: dict[str, Any]) -> None:
    onnx, tflite = facts["files"]
    assert (onnx["bytes"], onnx["float_bytes"], onnx["ratio"]) == (1000, 4000, 4.0)
    assert (tflite["bytes"], tflite["float_bytes"], tflite["ratio"]) == (1100, 4400, 4.0)
    assert onnx["sha256"] == hashlib.sha256(b"o" * 1000).hexdigest()


def test_speed_up_is_against_float_in_the_same_runtime(facts: dict[str, Any]) -> None:
    speed = {row["runtime"]: row["speed_up"] for row in facts["runtimes"]}
    assert speed == {"onnxruntime": 2.0, "litert-xnnpack": 0.5, "litert-reference": None}


def test_without_a_baseline_nothing_is_compared() -> None:
    facts = make_small_facts(baseline=())
    assert {file["ratio"] for file in facts["files"]} == {None}
    assert {row["speed_up"] for row in facts["runtimes"]} == {None}


def test_costs_are_those_of_the_graph(facts: dict[str, Any]) -> None:
    before, after = facts["cost"]["float"], facts["cost"]["deployed"]
    macs = 4 * 8 * 8 * 27 + 4 * 8 * 8 + 5 * 4
    weights, biases = 4 * 27 + 20, 4
    assert before["macs"] == after["macs"] == macs
    assert before["parameters"] == after["parameters"] == weights + biases
    assert before["weight_bytes"] == 4 * (weights + biases)
    assert after["weight_bytes"] == weights + 4 * biases  # int8 weights, int32 biases
    assert before["peak_activation_bytes"] == 4 * after["peak_activation_bytes"] == 4 * (3 + 4) * 64


def test_layers_join_costs_with_what_was_measured(facts: dict[str, Any]) -> None:
    assert [layer["name"] for layer in facts["layers"]] == ["image", "stem", "pool", "head"]
    stem = facts["layers"][1]
    assert stem["source"] == {"module": "stem", "file": "net.py", "line": 10}
    assert (stem["macs"], stem["weight_bytes"]) == (4 * 8 * 8 * 27, 4 * 27 + 4 * 4)
    assert (stem["range_low"], stem["range_high"]) == (0.0, 6.0)
    assert (stem["seen_low"], stem["seen_high"]) == (0.0, 5.5)
    assert stem["op_steps"] == {"litert-reference": 0, "litert-xnnpack": 1, "onnxruntime": 0}
    assert sum(layer["macs"] for layer in facts["layers"]) == facts["cost"]["deployed"]["macs"]


def test_only_stages_that_did_not_run_are_left_out(facts: dict[str, Any]) -> None:
    assert facts["left_out"] == [{"stage": "prune", "why": "costs accuracy"}]


def test_savings_say_which_were_used(facts: dict[str, Any]) -> None:
    used = {row["saving"]: row["used"] for row in facts["device"]["savings"]}
    assert used == {"int8": True, "structured": False, "unstructured": False, "codebook": False}
    assert all(row["why"] and row["pays"] for row in facts["device"]["savings"])


def test_a_target_given_as_a_path_leaves_the_path_out() -> None:
    assert make_small_facts(target_name="/home/someone/boards/mine.toml")["target"]["name"] == "mine.toml"


def test_passed_gates_are_listed_too(facts: dict[str, Any]) -> None:
    gates = {gate["gate"]: gate for gate in facts["gates"]}
    assert facts["missed"] == []
    agreement = ["op_steps", "output_share", "runtime_same_class"]
    assert list(gates) == [*agreement, "sqnr_db", "same_class", "accuracy_drop", "float_error"]
    assert gates["op_steps"]["measured"] == 1
    assert gates["accuracy_drop"]["measured"] == pytest.approx(0.5)
    assert gates["float_error"]["passed"] is None  # no float file was judged
    assert all(gate["passed"] for gate in facts["gates"] if gate["gate"] != "float_error")


@pytest.mark.parametrize(
    ("gate", "gates"),
    [
        ("op_steps", {"op_steps": 0}),
        ("sqnr_db", {"sqnr_db": 30.5}),
        ("cosine", {"cosine": 0.9999}),
        ("same_class", {"same_class": 0.99}),
        ("accuracy_drop", {"accuracy_drop": 0.25}),
    ],
)
def test_verdicts_are_those_of_the_validation(gate: str, gates: dict[str, float]) -> None:
    facts = make_small_facts(gates=Gates(**{**GATES.model_dump(), **gates}))
    assert facts["missed"]
    assert [row["gate"] for row in facts["gates"] if row["passed"] is False] == [gate]


def test_disagreeing_runtimes_miss_their_gates() -> None:
    validation = small_validation()
    pair = replace(validation.agreements[0], share_within=0.9, same_class=0.5)
    facts = make_small_facts(validation=replace(validation, agreements=(pair,)))
    missed = [row["gate"] for row in facts["gates"] if row["passed"] is False]
    assert missed == ["output_share", "runtime_same_class"]
    assert len(facts["missed"]) == 2


def test_any_value_becomes_plain() -> None:
    given = {Granularity.PER_TENSOR: {3, 1}, "x": (np.int64(2), np.array([1.5, np.nan])), "o": object}
    made = to_plain(given)
    assert made["per_tensor"] == [1, 3]
    assert made["x"] == [2, [1.5, None]]
    assert json.loads(json.dumps(made, allow_nan=False)) == made
