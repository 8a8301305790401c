"""Placements, shares and figures of one file, from tables as Vela writes them."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn import functional as F

from tests.backends.vela.conftest import LAYERS, SUMMARY
from tests.ops.harness import normal, quantized, traced
from toolchain.backends import Placement, Written
from toolchain.backends.vela.compiler import Compiled
from toolchain.backends.vela.measure import compile_operators, measure
from toolchain.errors import DeviceError, UnsupportedError
from toolchain.formats.tflite import write_tflite
from toolchain.profiles import load_profile

DEVICE = load_profile("ethos-u55-128")
HEADER = LAYERS.splitlines()[0]
X = normal(1, 8, 6, 6)


class Shuffled(nn.Module):
    """Two convolutions, with an op between them that the NPU has not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(2, 4, 1)

    def forward(self, x):
        return self.second(F.pixel_shuffle(self.first(x), 2))


def written() -> Written:
    model = quantized(traced(Shuffled(), X), X)
    return Written("model.tflite", write_tflite(model), model, (), ())


def given(monkeypatch: pytest.MonkeyPatch, on_cpu: list[str], printed: str = "") -> None:
    rows = [f"Op,Passthrough,CPU,{'0,' * 12}{name}" for name in on_cpu]
    made = Compiled(SUMMARY, "\n".join([HEADER, *rows]), printed, b"compiled")
    monkeypatch.setattr("toolchain.backends.vela.measure.compile_file", lambda content, options: made)


def test_what_runs_where_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = (
        "Warning (supported operators) operator: DEPTH_TO_SPACE, ofm: 'depth_to_space'\nReason: Unsupported opType\n"
    )
    given(monkeypatch, ["depth_to_space"], printed)
    found = measure(written(), DEVICE)
    instead = DEVICE.execution.instead["depth_to_space"]
    assert found.placements == (
        Placement("CONV_2D", "first", "npu"),
        Placement("DEPTH_TO_SPACE", "depth_to_space", "cpu", "Unsupported opType", instead),
        Placement("CONV_2D", "second", "npu"),
    )
    figures = found.by_key
    assert (figures["npu_macs_share"], figures["npu_ops_share"], figures["cpu_ops"]) == (1.0, 1 - 1 / 3, 1)
    assert figures["sram_bytes"] == figures["flash_bytes"] == 2048 and figures["dram_bytes"] == 512
    assert figures["cycles"] == 1234 and figures["inference_ms"] == pytest.approx(1234 / 200e6 * 1e3)
    assert (figures["weight_bytes"], figures["encoded_weight_bytes"], figures["compiled_bytes"]) == (1000, 250, 8)
    assert found.files == {"model_vela.tflite": b"compiled"} and all(figure.exact for figure in found.figures)
    assert "no interpreter of this machine takes it" in found.notes[0]
    assert "Vela leaves out 1 operator(s) on the CPU" in found.notes[1]


def test_an_operator_left_to_the_cpu_without_a_word_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, ["depth_to_space"])
    why = "Vela leaves it to the CPU without a reason"
    assert [placement.why for placement in measure(written(), DEVICE).placements] == ["", why, ""]


def test_multiply_accumulates_on_the_cpu_count(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = 8 * 8 * 9 * 36, 2 * 4 * 144
    given(monkeypatch, ["second"])
    assert compile_operators("m", written().content, DEVICE).macs_share == pytest.approx(first / (first + second))
    given(monkeypatch, ["first", "second"])
    assert compile_operators("m", written().content, DEVICE).macs_share == 0


def test_a_file_of_which_nothing_runs_on_the_npu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, ["first", "depth_to_space", "second"])
    with pytest.raises(UnsupportedError, match=r"nothing of model\.tflite runs on ethos-u55-128"):
        measure(written(), DEVICE)


def test_operators_that_the_file_does_not_have_are_no_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, ["third"])
    with pytest.raises(DeviceError, match="that the file does not name: third"):
        measure(written(), DEVICE)


def test_a_file_without_layers_has_the_share_of_its_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    model = quantized(traced(lambda x: (x + 1).relu() * x, X), X)
    given(monkeypatch, ["mul"])
    found = compile_operators("m", write_tflite(model), DEVICE)
    assert found.macs == 0 and found.macs_share == found.ops_share == 1 - 1 / len(found.operators)
