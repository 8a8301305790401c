"""A small network taken through the real stages and both runtimes, and what is then told of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from test_html import Page
from torch import nn

from toolchain.pipeline import Pipeline, StageRun
from toolchain.report import FloatFile, render_html, report_facts
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.export import Export
from toolchain.stages.quantize import Quantize
from toolchain.stages.states import ExportedModel
from toolchain.stages.trace import Trace
from toolchain.targets import load_target
from toolchain.validation.validate import validate


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.stem(x).mean((2, 3))
        return self.head(pooled)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def real_facts() -> dict[str, Any]:
    torch.manual_seed(0)
    samples = samples_from(np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32))
    target, profile = load_target("arm64")
    stages = (Trace(example_inputs=samples.first_inputs()), Calibrate(samples=samples), Quantize(), Export())
    runs: list[StageRun] = []
    exported = Pipeline(stages).run(Net().eval(), on_end=runs.append)
    assert isinstance(exported, ExportedModel)
    validation = validate(exported, samples, target.gates)
    return report_facts(
        target_name="arm64",
        target=target,
        profile=profile,
        model_name="net",
        exported=exported,
        runs=runs,
        validation=validation,
        baseline=[FloatFile("model.onnx", "onnxruntime", 2500, 0.1)],
    )


def test_every_layer_is_measured_and_leads_to_its_line(real_facts: dict[str, Any]) -> None:
    layers = {layer["name"]: layer for layer in real_facts["layers"]}
    assert layers["stem.0"]["source"]["file"].endswith("test_real_deployment.py")
    assert layers["stem.0"]["macs"] == 8 * 8 * 8 * 27
    assert layers["stem.0"]["weight_bytes"] == 8 * 27 + 4 * 8
    for layer in real_facts["layers"]:
        assert layer["sqnr_db"] > 20
        assert layer["range_low"] <= layer["range_high"]
        assert layer["op"] == "input" or set(layer["op_steps"]) >= {"onnxruntime", "litert-xnnpack"}


def test_stages_are_told_in_order_with_what_they_did(real_facts: dict[str, Any]) -> None:
    assert [run["name"] for run in real_facts["stages"]] == ["trace", "calibrate", "quantize", "export"]
    assert real_facts["stages"][1]["facts"]["samples"] == 32
    assert {row["stage"] for row in real_facts["left_out"]} == {"prune", "cluster", "recover"}


def test_the_gates_tell_what_the_validation_told(real_facts: dict[str, Any]) -> None:
    assert bool(real_facts["missed"]) == any(gate["passed"] is False for gate in real_facts["gates"])


def test_the_page_is_whole_and_the_facts_are_json(real_facts: dict[str, Any]) -> None:
    page = render_html(json.loads(json.dumps(real_facts, allow_nan=False)))
    assert page == render_html(real_facts)
    text = Page(page).text
    assert all(layer["name"] in text for layer in real_facts["layers"])
