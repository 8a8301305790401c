"""The price list: bytes in every form, and which savings a device pays for."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from deployments import make_small_facts, small_graph

from toolchain.backends.vela import costs
from toolchain.compress.clustering.codebook import Clustering, Granularity, apply_codebooks, plan_codebooks
from toolchain.formats.onnx import write_onnx
from toolchain.formats.tflite import write_tflite
from toolchain.graph import Structure
from toolchain.packing.packer import pack
from toolchain.profiles import load_profile
from toolchain.quantization import Scheme, assign_params
from toolchain.report.html import render_html
from toolchain.report.layers import float_cost, graph_cost
from toolchain.report.prices import lut_bytes, price_list
from toolchain.stages.states import ExportedModel
from toolchain.validation.proof import prove

VALUES = 4


def clustered(granularity: Granularity = Granularity.PER_TENSOR) -> ExportedModel:
    graph = small_graph()
    random = np.random.default_rng(0)
    names = ("stem.weight", "head.weight")
    masks = {name: random.random(graph.constants[name].shape) > 0.5 for name in names}
    drawn = {n: (random.standard_normal(m.shape) * m).astype(np.float32) for n, m in masks.items()}
    graph = graph.with_constants(drawn)
    plan = plan_codebooks(graph, Clustering(clusters=VALUES, granularity=granularity), Structure(masks))
    structure = Structure(masks, plan.codebooks)
    quantized = assign_params(
        apply_codebooks(plan, graph), dict.fromkeys(graph.activations, (-2.0, 2.0)), Scheme(), structure
    )
    return ExportedModel(
        graph=quantized.graph,
        reference=graph,
        params=quantized.params,
        structure=structure,
        files={"model.onnx": write_onnx(quantized), "model.tflite": write_tflite(quantized)},
    )


def prices(model: ExportedModel, device: str = "cortex-a76") -> dict[str, Any]:
    cost = {"float": float_cost(model.reference), "deployed": graph_cost(model.graph, model.params)}
    files = [{"name": name, "is_float": False, "float_bytes": 5000} for name in model.files]
    return price_list(model, load_profile(device), prove(model), cost, files)


def savings(found: dict[str, Any]) -> dict[str, Any]:
    return {row["saving"]: row for row in found["savings"]}


def test_every_figure_is_that_of_a_real_encoding() -> None:
    model = clustered()
    found = prices(model)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for row, (name, content) in zip(found["files"], model.files.items(), strict=True):
        packed = len(pack(content)[0])
        assert (row["name"], row["bytes"], row["packed_bytes"]) == (name, len(content), packed)
        assert row["deflated_bytes"] == len(zlib.compress(content, 9))
        assert row["packed_ratio"] == 5000 / packed
    assert found["macs"] == found["float_macs"] > 0


def test_lookup_tables_are_counted_as_indices_and_values() -> None:
    """108 and 20 weights at 2 bits, and one table of 4 bytes each, as biases stay."""
    model = clustered()
    content = model.files["model.tflite"]
    assert lut_bytes(content) == len(content) - (108 - 27 - 4) - (20 - 5 - 4)
    assert lut_bytes(write_tflite(small_graph())) is None  # nothing of it is int8
    assert lut_bytes(b"no file") is None


def test_savings_that_are_not_there_buy_nothing() -> None:
    model = clustered()
    plain = replace(model, structure=Structure())
    found = savings(prices(plain))
    assert found["unstructured"]["pays"] == found["codebook"]["pays"] == found["structured"]["pays"] == []
    assert found["int8"]["pays"] == ["time", "memory", "download"]


def test_a_cpu_pays_for_the_download_and_an_npu_for_more() -> None:
    model = clustered()
    share = np.mean([1 - mask.mean() for mask in model.structure.masks.values()])
    for device, pays in (("cortex-a76", ["download"]), ("ethos-u55-128", ["time", "memory", "download"])):
        found = savings(prices(model, device))
        assert found["codebook"]["pays"] == found["unstructured"]["pays"] == pays
        assert found["codebook"]["amount"] == f"one codebook a tensor, of at most {VALUES} values"
        assert found["codebook"]["why"] and found["unstructured"]["why"]
        assert float(found["unstructured"]["amount"].partition("%")[0]) == pytest.approx(100 * share, abs=10)


def test_codebooks_a_channel_buy_an_npu_nothing_but_a_download() -> None:
    found = savings(prices(clustered(Granularity.PER_CHANNEL), "ethos-u55-128"))
    assert found["codebook"]["pays"] == ["download"]
    assert "one codebook a tensor" in found["codebook"]["why"]


def test_a_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "is_installed", lambda: False)
    found = prices(clustered(), "ethos-u55-128")
    assert found["notes"] == [costs.NOT_INSTALLED]
    assert all(row["npu"] is None for row in found["files"])
    assert prices(clustered(), "cortex-a76")["notes"] == []


def test_a_file_that_cannot_be_packed_is_a_line() -> None:
    model = replace(clustered(), files={"model.onnx": b"o" * 1000})
    cost = {"float": float_cost(model.reference), "deployed": graph_cost(model.graph, model.params)}
    found = price_list(model, load_profile("cortex-a76"), (), cost, ())
    assert found["files"][0]["packed_bytes"] is None
    assert "not packed" in found["notes"][0]


def test_the_page_shows_prices_and_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "is_installed", lambda: False)
    model = clustered()
    facts = make_small_facts()
    assert "Price list" not in render_html(facts)
    facts |= {"prices": prices(model, "ethos-u55-128"), "proof": [row.to_plain() for row in prove(model)]}
    page = render_html(json.loads(json.dumps(facts)))
    assert "Price list" in page and "Proved from the bytes" in page
    assert "✓ holds" in page and "✗ broken" not in page
    assert costs.NOT_INSTALLED in page
    assert "one codebook a tensor, of at most 4 values" in page
