"""Lint: what a target lacks, with its place in the model, before anything is trained or written."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from toolchain import lint
from toolchain.cli import app
from toolchain.errors import OptionError, UnsupportedError
from toolchain.profiles.tables import Limit


class Tail(nn.Module):
    def forward(self, x):
        return F.mish(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.tail = Tail()

    def forward(self, x):
        return self.tail(self.wide(x))


IMAGE = (np.zeros((1, 3, 32, 32), np.float32),)


def test_a_recurrent_layer_computes_in_float_or_is_written_out_where_nothing_does():
    x = (np.zeros((1, 4, 3), np.float32),)
    on_arm = lint(nn.LSTM(3, 5, batch_first=True), target="arm64", example_inputs=x)
    assert on_arm.findings and not on_arm.blocks
    assert all("onnxruntime's lstm has no integer kernel" in finding.why for finding in on_arm.findings)
    assert not lint(nn.LSTM(3, 5, batch_first=True), target="ethos-u55", example_inputs=x).findings


def test_a_device_that_has_everything_has_no_findings():
    found = lint(nn.Conv2d(3, 8, 3), target="arm64", example_inputs=IMAGE)
    assert found.findings == () and not found.blocks
    assert found.weight_bytes == 3 * 8 * 9 + 8


def test_ops_and_attributes_that_a_device_lacks_are_told_with_place_and_advice():
    found = lint(Net(), target="ethos-u55", example_inputs=IMAGE)
    stride, mish = found.findings
    assert (stride.op, stride.why) == ("conv2d wide", "stride is 4, the device takes at most 3")
    assert stride.instead and stride.source.module == "wide"
    assert mish.op == "mish tail" and mish.instead == "hardswish"
    assert mish.source.module == "tail" and mish.source.file.endswith("test_lint.py") and mish.source.line
    assert found.blocks


def test_what_a_cpu_computes_in_float_is_a_note_that_blocks_nothing():
    found = lint(nn.LayerNorm(8), target="arm64", example_inputs=(np.zeros((1, 8), np.float32),))
    (note,) = found.findings
    assert note.op.startswith("layer_norm") and not note.blocks and not found.blocks


def test_ops_outside_the_set_are_findings_too():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x).abs()

    found = lint(Odd(), target="arm64", example_inputs=(np.zeros((1, 8), np.float32),))
    assert found.blocks and "fft" in found.findings[0].op


def test_memory_is_told_against_the_device():
    found = lint(
        nn.Conv2d(3, 64, 3, padding=1), target="ethos-u55", example_inputs=(np.zeros((1, 3, 512, 512), np.float32),)
    )
    assert found.blocks and "RAM" in found.memory[0]


def test_the_same_findings_refuse_a_deployment(tmp_path):
    from toolchain import deploy, samples_from

    samples = samples_from(np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32))
    with pytest.raises(UnsupportedError, match="stride is 4, the device takes at most 3"):
        deploy((Net(), torch.zeros(1, 3, 32, 32)), target="ethos-u55", calibration=samples, out=tmp_path, store=None)


def test_mobilenet_v2_takes_a_fraction_of_its_tracing():
    from tests.zoo.mobilenet_v2 import MobileNetV2

    model, inputs = MobileNetV2(), (np.zeros((1, 3, 224, 224), np.float32),)
    lint(model, target="ethos-u55", example_inputs=inputs)
    exports, lints = [], []
    for _ in range(3):  # in turn, and the best of each: another process may take the core in between
        started = time.perf_counter()
        torch.export.export(model.eval(), (torch.zeros(1, 3, 224, 224),))
        exported = time.perf_counter()
        lint(model, target="ethos-u55", example_inputs=inputs)
        exports.append(exported - started)
        lints.append(time.perf_counter() - exported)
    # exporting is torch's own work; all of ours beside it
    assert min(lints) < 2.5 * min(exports)


@pytest.mark.parametrize(
    ("limit", "value", "refused"),
    [
        (Limit(attribute="stride", at_most=3), 4, True),
        (Limit(attribute="stride", at_least=1, at_most=3), 2, False),
        (Limit(attribute="upscale", one_of=(1.0, 2.0)), 3.0, True),
    ],
)
def test_limits(limit, value, refused):
    assert limit.refuses(value) is refused


def test_the_command_prints_json_and_leaves_with_5_where_it_blocks(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Mish())\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["lint", "--target", "ethos-u55", "--model", "mine:net", "--shape", "1,3,16,16", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == UnsupportedError.exit_code
    assert [finding["op"] for finding in json.loads(done.stdout)["findings"]] == ["mish 1"]
    done = CliRunner().invoke(app, ["lint", "--model", "mine:net", "--shape", "nonsense"])
    assert isinstance(done.exception, OptionError)
