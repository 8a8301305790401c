"""Placement from the provider's trace: names as onnxruntime has changed them, reasons, cures, shares."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.backends.qnn.htp_networks import profile_of, written
from tests.ops.harness import Call, normal
from toolchain.backends.qnn.placement import place
from toolchain.errors import DeviceError
from toolchain.graph.cost import node_costs


def trace_of(npu: list[str], cpu: dict[str, str]) -> dict:
    """A trace as the provider writes it."""
    sources = [[{"name": name, "type": "OP"}, {"name": f"{name}/out", "type": "TENSOR"}] for name in npu]
    mappings = [{"dst_name": "q", "dst_qnn_op_type": "Q", "sources": given} for given in sources]
    refused = [{"node_index": 1, "node_name": name, "op_type": "?", "reason": why} for name, why in cpu.items()]
    return {"subgraph_traces": [{"graph_name": "g", "op_mappings": mappings}], "unsupported_nodes": refused}


@pytest.fixture(scope="module")
def two_layers():
    return written(nn.Sequential(nn.Conv2d(3, 4, 3), Call(torch.erf), nn.Conv2d(4, 8, 1)), normal(1, 3, 8, 8))


def names(given, op_type):
    from toolchain.formats.onnx.reader import parse_onnx

    return [node.name for node in parse_onnx(given.content).graph.node if node.op_type == op_type]


def test_names_are_found_behind_what_onnxruntime_adds(two_layers):
    first, last = names(two_layers, "Conv")
    trace = trace_of([f"{first}_token_7", f"{last}_token_2_token_19", "Transpose_token_1"], {})
    found = place(two_layers, trace, profile_of("SM8650"))
    assert [(one.op, one.name, one.where) for one in found.placements] == [
        ("Conv", first, "npu"),
        ("Conv", last, "npu"),
    ]
    assert found.nodes_share == 1.0 and found.macs_share == 1.0


def test_what_runs_on_the_cpu_has_qnns_reason_and_a_cure(two_layers):
    (erf,), convs = names(two_layers, "Erf"), names(two_layers, "Conv")
    why = "Operators of type `Erf` are not supported by QNN EP."
    found = place(two_layers, trace_of(convs, {erf: why}), profile_of("SM8650"))
    (row,) = (one for one in found.placements if one.where == "cpu")
    assert row.op == "Erf" and row.why == why.rstrip(".") and row.instead == "gelu, tanh or sigmoid"
    assert found.nodes_share == pytest.approx(2 / 3)


def test_macs_are_those_of_the_graph(two_layers):
    first, last = names(two_layers, "Conv")
    found = place(two_layers, trace_of([last], {f"{first}_token_3": "Failed to add node."}), profile_of("SM8650"))
    macs = {cost.name: cost.macs for cost in node_costs(two_layers.model.graph)}
    assert found.macs_share == pytest.approx(1 - macs[first] / sum(macs.values()))
    assert found.placements[0].why.startswith("QNN's validator refuses the op")


def test_a_reason_ends_where_it_repeats_the_node(two_layers):
    first, last = names(two_layers, "Conv")
    said = f"Operators of type `Conv` are not supported by QNN EP.Conv node `{first}` will not be assigned to QNN EP."
    found = place(two_layers, trace_of([last], {first: said}), profile_of("SM8650"))
    assert found.placements[0].why == "Operators of type `Conv` are not supported by QNN EP"


def test_an_op_that_becomes_several_is_on_the_npu_where_all_are():
    given = written(Call(lambda x: x.mean((2, 3))), normal(1, 3, 8, 8))
    (pool,), (shape,) = names(given, "GlobalAveragePool"), names(given, "Reshape")
    found = place(given, trace_of([pool], {shape: "Failed to add node."}), profile_of("SM8650"))
    assert found.nodes_share == 0.5 and found.macs_share == 0.0


def test_a_trace_that_names_nothing_of_the_file_is_no_whole_share(two_layers):
    with pytest.raises(DeviceError, match=r"names none of the 3 ops of model\.onnx"):
        place(two_layers, trace_of(["x_token_1"], {}), profile_of("SM8650"))


def test_a_trace_of_another_form_is_refused(two_layers):
    for trace in ({}, {"unsupported_nodes": [{}], "subgraph_traces": []}, {"unsupported_nodes": None}):
        with pytest.raises(DeviceError, match="trace of ops cannot be read"):
            place(two_layers, trace, profile_of("SM8650"))
