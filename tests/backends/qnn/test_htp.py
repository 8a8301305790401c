"""Qualcomm's real compiler and emulator on this toolchain's files; skipped where onnxruntime-qnn is not installed."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.backends.qnn.htp_networks import profile_of, small_network, written, written_model
from tests.ops.harness import Call, normal
from toolchain.backends.qnn import QNN, compiler
from toolchain.backends.qnn.compiler import compile_file
from toolchain.errors import DeviceError, UnsupportedError
from toolchain.formats.onnx import write_onnx
from toolchain.graph import DType
from toolchain.profiles.backends import HtpSoc
from toolchain.quantization import QuantizedGraph, Scheme

pytestmark = pytest.mark.skipif(
    find_spec("onnxruntime_qnn") is None, reason="onnxruntime-qnn is not installed (pip install 'edge-toolchain[htp]')"
)

IMAGE = normal(1, 4, 6, 6)


def measured(module, *inputs, socs=("SM8650",), contexts=False, scheme=None):
    return QNN.measure(written(module, *inputs, scheme=scheme), profile_of(*socs, contexts=contexts))


def test_a_network_runs_whole_on_the_npu_of_old_and_new_socs():
    socs = ("SM8350", "SM8450", "SM8650", "SM8850")
    found = measured(small_network(), normal(1, 3, 8, 8), socs=socs)
    assert {one.where for one in found.placements} == {"npu"}
    assert found.by_key["npu_nodes_share"] == found.by_key["npu_macs_share"] == 1.0
    assert found.by_key["htp_op_steps"] <= 1


def test_context_files_repeat_to_the_byte_and_hold_no_library():
    given = written(small_network(), normal(1, 3, 8, 8))
    first, second = (QNN.measure(given, profile_of("SM8450", "SM8850", contexts=True)) for _ in range(2))
    assert first.files == second.files and len(first.files) == 4
    for name, content in first.files.items():
        assert name.startswith("model.sm8") and b"\x7fELF" not in content
        assert len(content) == first.by_key["context_bytes"] or name.endswith(".onnx") or len(content) < 1e6
    assert b"model.sm8450.ctx_qnn.bin" in first.files["model.sm8450.ctx.onnx"]


OPS = {
    "sub": (Call(lambda x, y: x - y), IMAGE, normal(1, 4, 6, 6, seed=1)),
    "tanh": (nn.Tanh(), IMAGE),
    "clamp": (Call(lambda x: x.clamp(-1.0, 0.5)), IMAGE),
    "pad": (Call(lambda x: functional.pad(x, (1, 2, 0, 1))), IMAGE),
    "gather": (Call(lambda x: x[:, [2, 0, 1, 3]]), IMAGE),
    "pixel unshuffle": (nn.PixelUnshuffle(2), IMAGE),
    "group norm": (nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1)), IMAGE),
    "a sum with zeros": (Call(lambda x: functional.relu(functional.relu(-x) - x + torch.zeros(4, 1, 1))), IMAGE),
    "relu6 behind a concat": (Call(lambda x: torch.cat([functional.relu6(functional.max_pool2d(x, 1)), x], 1)), IMAGE),
}


@pytest.mark.parametrize(("module", "inputs"), [(c[0], c[1:]) for c in OPS.values()], ids=OPS.keys())
def test_what_qnn_refuses_in_onnxruntimes_own_form_it_takes_in_qdq_form(module, inputs):
    found = measured(module, *inputs)
    assert {one.where for one in found.placements} == {"npu"}
    assert found.by_key["htp_op_steps"] <= 1


def test_onnxruntimes_own_form_falls_to_the_cpu():
    given = written(OPS["pad"][0], IMAGE)
    found = QNN.measure(replace(given, content=write_onnx(given.model)), profile_of("SM8650"))
    assert [one.op for one in found.placements if one.where == "cpu"] == ["Pad"]
    assert found.by_key["npu_nodes_share"] < 1


def test_an_op_that_qnn_lacks_is_named_with_its_reason():
    found = measured(Call(lambda x: torch.erf(functional.max_pool2d(x, 2))), IMAGE)
    (row,) = (one for one in found.placements if one.where == "cpu")
    assert (row.op, row.why) == ("Erf", "Operators of type `Erf` are not supported by QNN EP")
    assert row.instead == "gelu, tanh or sigmoid"


def test_a_dead_channel_does_not_saturate_old_depthwise_convolutions():
    """Its weights would have a scale so small that Hexagon v69 gives 255 for all of the channel."""
    layer = nn.Conv2d(4, 4, 3, groups=4, padding=1)
    with torch.no_grad():
        layer.weight[1] = 1e-9 * layer.weight[1]
        layer.bias.fill_(0.1)
    given = written(layer, IMAGE)
    assert QNN.measure(given, profile_of("SM8450")).by_key["htp_op_steps"] <= 1
    # what the floor of scales is for: without it the HTP is wrong
    params = dict(given.model.params)
    weight, bias = given.model.graph.nodes[0].inputs[1:]
    for name in (weight, bias):
        scale = params[name].scale.copy()
        scale[1] *= 2.0**-8
        params[name] = replace(params[name], scale=scale)
    wrong = written_model(QuantizedGraph(given.model.graph, params), IMAGE)
    assert QNN.measure(wrong, profile_of("SM8450")).by_key["htp_op_steps"] > 100


def test_int16_activations_run_on_the_npu():
    scheme = Scheme(activation_dtype=DType.INT16, activation_symmetric=True)
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 8, 1))
    found = measured(module, IMAGE, scheme=scheme)
    assert found.by_key["npu_nodes_share"] == 1.0 and found.by_key["htp_op_steps"] <= 1


def test_an_unknown_architecture_is_caught(monkeypatch):
    monkeypatch.setitem(compiler.HTP_SOCS, "SM8650", HtpSoc(57, 99))
    given = written(nn.ReLU(), IMAGE)
    with pytest.raises(DeviceError, match="QNN compiled for architecture none of SoC 57, not for SM8650"):
        compile_file(given.content, "SM8650", {given.model.graph.input_names[0]: list(given.inputs[0])})


def test_an_unknown_soc_falls_back_on_the_cpu_and_is_caught(monkeypatch):
    monkeypatch.setitem(compiler.HTP_SOCS, "SM8650", HtpSoc(999, 75))
    given = written(nn.ReLU(), IMAGE)
    with pytest.raises(DeviceError, match=r"QNN compiled nothing: .*Invalid config"):
        compile_file(given.content, "SM8650", {given.model.graph.input_names[0]: list(given.inputs[0])})


def test_a_file_that_the_compiler_refuses_names_the_soc():
    with pytest.raises(UnsupportedError, match=r"QNN does not compile the file for SM8450: .*MEM_ALLOC"):
        measured(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU()), IMAGE, socs=("SM8450",))


def test_a_dynamic_batch_leaves_all_to_the_cpu_which_is_why_it_is_refused_before():
    given = written(nn.Conv2d(4, 2, 1), IMAGE)
    content = write_onnx(given.model, qdq_only=True, dynamic_batch=True)
    assert QNN.measure(replace(given, content=content), profile_of("SM8650")).by_key["npu_nodes_share"] == 0
