"""What the price list asks of Vela: figures, or one line that says why there are none."""

from __future__ import annotations

import pytest

from tests.backends.vela.conftest import LAYERS, PRINTED, SUMMARY
from tests.ops.harness import normal, quantized, traced
from toolchain.backends.vela import costs
from toolchain.backends.vela.compiler import Compiled
from toolchain.backends.vela.costs import NOT_INSTALLED, NpuCost, compile_for_npu, is_npu
from toolchain.formats.tflite import write_tflite
from toolchain.profiles import load_profile

DEVICE = load_profile("ethos-u55-128")


def adding() -> bytes:
    """A file of one ADD."""
    x = normal(1, 4)
    graph = traced(lambda x: x + 1, x)
    return write_tflite(quantized(graph, x))


def test_the_figures_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = LAYERS.splitlines()[0]
    for summary, flash in ((SUMMARY, 2048), (SUMMARY.replace("0.25,1.75", "0,0"), 3)):
        made = Compiled(summary, layers, PRINTED, b"abc")
        monkeypatch.setattr("toolchain.backends.vela.measure.compile_file", lambda content, options, made=made: made)
        monkeypatch.setattr(costs, "is_installed", lambda: True)
        assert compile_for_npu(adding(), DEVICE) == NpuCost(1000, 250, flash, 2048, 1234)


def test_what_is_no_file_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "is_installed", lambda: True)
    assert compile_for_npu(b"wrong", DEVICE) == "this is no TFLite file: its identifier is not TFL3"


def test_without_vela_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "is_installed", lambda: False)
    assert compile_for_npu(b"", DEVICE) == NOT_INSTALLED


def test_which_devices_it_is_asked_for() -> None:
    assert is_npu(DEVICE) and not is_npu(load_profile("cortex-a76"))
