"""Figures of several SoCs are the worst of all; steps are counted in the tensor's own."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from tests.backends.qnn.htp_networks import profile_of, small_network, written
from tests.backends.qnn.test_qnn_placement import trace_of
from tests.ops.harness import normal
from toolchain.backends.qnn import measure as module
from toolchain.backends.qnn.compiler import Compiled
from toolchain.backends.qnn.measure import measure
from toolchain.errors import DeviceError, UnsupportedError
from toolchain.formats.onnx.reader import parse_onnx
from toolchain.formats.onnx.session import load_session, run_session
from toolchain.graph import DType
from toolchain.quantization import Scheme

IMAGE = normal(1, 3, 8, 8)


class Emulator:
    """Computes as onnxruntime's CPU does, `off` integers beside it at an output of the whole, `op_off` at one of an
    op."""

    def __init__(self, monkeypatch, *, cpu=None, off=0, op_off=0, parts=None):
        self.cpu, self.off, self.op_off, self.parts = cpu or {}, off, op_off, parts
        self.asked: list[tuple[str, str | None, int]] = []
        monkeypatch.setattr(module, "compile_file", self)
        monkeypatch.setattr(module, "version", lambda: "1.2.3")

    def __call__(self, content, soc, inputs, *, data=None, context=None):
        is_part = any(name.endswith("/given") for name in inputs)
        if is_part and self.parts is not None:
            raise self.parts
        count = len(next(iter(inputs.values())))
        self.asked.append((soc, context, count))
        proto = parse_onnx(content)
        session = load_session(content, 1, unsigned=True)
        names = [value.name for value in session.get_outputs()]
        rows = [run_session(session, names, {k: a[at] for k, a in inputs.items()}) for at in range(count)]
        outputs = {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        shift = self.op_off if is_part else self.off
        for array in outputs.values():
            array.flat[0] = array.flat[0] + shift if array.flat[0] < 100 else array.flat[0] - shift
        off = self.cpu.get(soc, [])
        ops = [n.name for n in proto.graph.node if "uantizeLinear" not in n.op_type]
        trace = trace_of([name for name in ops if name not in off], dict.fromkeys(off, "Failed to add node."))
        files = {} if context is None else {context: b"onnx", context.replace(".onnx", "_qnn.bin"): b"0" * 40}
        return Compiled(soc, trace, outputs, files)


@pytest.fixture(scope="module")
def network():
    return written(small_network(), IMAGE)


def test_a_network_that_the_npu_takes_whole(network, monkeypatch):
    emulator = Emulator(monkeypatch)
    found = measure(network, profile_of("SM8450", "SM8650", contexts=True))
    assert found.by_key == {
        "npu_nodes_share": 1.0,
        "npu_macs_share": 1.0,
        "htp_output_steps": 0,
        "htp_output_share": 1.0,
        "htp_op_steps": 0,
        "htp_op_share": 1.0,
        "context_bytes": 40,
    }
    assert set(found.files) == {
        f"model.{soc}.ctx{end}" for soc in ("sm8450", "sm8650") for end in (".onnx", "_qnn.bin")
    }
    assert found.version == "1.2.3 for SM8450, SM8650" and found.notes == ()
    assert {one.where for one in found.placements} == {"npu"}
    # once whole, once cut, on each
    assert [soc for soc, *_ in emulator.asked] == ["SM8450", "SM8650", "SM8450", "SM8650"]


def test_the_worst_soc_is_told_with_its_placement(network, monkeypatch):
    (conv, *_) = [n.name for n in parse_onnx(network.content).graph.node if n.op_type == "Conv"]
    Emulator(monkeypatch, cpu={"SM8450": [conv]})
    found = measure(network, profile_of("SM8650", "SM8450"))
    assert found.by_key["npu_nodes_share"] < 1
    assert [one.name for one in found.placements if one.where == "cpu"] == [conv]
    (note,) = found.notes
    assert note.startswith("ops on the NPU differ: SM8650 100.0%, SM8450 ")


@pytest.mark.parametrize("off", [1, 3])
def test_steps_of_outputs_and_of_ops_are_apart(network, monkeypatch, off):
    Emulator(monkeypatch, off=off, op_off=2)
    found = measure(network, profile_of("SM8650")).by_key
    assert found["htp_output_steps"] == off and found["htp_op_steps"] == 2
    assert found["htp_output_share"] == (1.0 if off == 1 else pytest.approx(0.8))
    assert found["htp_op_share"] == 0.0


@pytest.mark.parametrize("error", [DeviceError("QNN died"), UnsupportedError("QNN does not compile it")])
def test_what_cannot_be_looked_at_op_by_op_is_a_note(network, monkeypatch, error):
    Emulator(monkeypatch, parts=error)
    found = measure(network, profile_of("SM8650"))
    assert "htp_op_steps" not in found.by_key and found.by_key["npu_nodes_share"] == 1.0
    assert found.notes == (f"steps op by op are not measured: {error.what}",)


def test_a_step_of_16_bits_is_one_of_8(monkeypatch):
    scheme = Scheme(activation_dtype=DType.INT16, activation_symmetric=True)
    given = written(nn.Conv2d(3, 4, 3), IMAGE, scheme=scheme)
    for off, steps in ((0, 0), (3, 1), (257, 1), (258, 2)):
        Emulator(monkeypatch, off=off)
        assert measure(given, profile_of("SM8650")).by_key["htp_output_steps"] == steps


def test_large_networks_run_one_sample(network, monkeypatch):
    emulator = Emulator(monkeypatch)
    many = type(network)(network.name, network.content, network.model, network.inputs * 4, network.expected * 4)
    measure(many, profile_of("SM8650"))
    monkeypatch.setattr(module, "EMULATED_MACS", 1)
    measure(many, profile_of("SM8650"))
    assert [count for *_, count in emulator.asked] == [4, 1, 1, 1]


def test_nothing_of_the_emulators_cycles_is_told(network, monkeypatch):
    Emulator(monkeypatch)
    said = repr(measure(network, profile_of("SM8650")))
    assert "cycle" not in said and " ms" not in said
