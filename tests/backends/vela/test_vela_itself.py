"""Vela itself on small networks: what the gate says before it runs is what it does, and its traps are guarded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ops.harness import normal, quantized, traced
from toolchain import deploy, samples_from
from toolchain.backends import Written
from toolchain.backends.vela.compiler import compile_file
from toolchain.backends.vela.constraints import find_clashes
from toolchain.backends.vela.gate import constraint_table
from toolchain.backends.vela.installation import vela_options
from toolchain.backends.vela.measure import compile_operators, measure
from toolchain.backends.vela.operators import read_operators
from toolchain.backends.vela.readings import read_layers, read_summary
from toolchain.errors import UnsupportedError
from toolchain.formats.tflite import write_tflite
from toolchain.graph.cost import node_costs
from toolchain.profiles import load_profile
from toolchain.quantization import NumberFormat, QuantizedGraph, Scheme

pytest.importorskip("ethosu.vela", reason="the extra npu is not installed")

DEVICES = ("ethos-u55-128", "ethos-u55-256", "ethos-u65-512", "ethos-u85-256")
X = normal(1, 3, 16, 16)


class Plain(nn.Module):
    """Convolutions, a pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.classes = nn.Linear(8, 4)

    def forward(self, x):
        return self.classes(F.relu6(self.second(self.first(x).relu())).mean((2, 3)))


class Mixed(Plain):
    """With ops that no Ethos-U has, and some that one of them has."""

    def forward(self, x):
        x = F.gelu(self.first(x))
        x = F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2)
        y = self.second(F.interpolate(x, scale_factor=3.0))
        return self.classes(y[:, ::2].repeat(1, 2, 1, 1).mean((2, 3)))


def model_of(module: nn.Module, numbers: NumberFormat = NumberFormat.W8A8, x: np.ndarray = X) -> QuantizedGraph:
    torch.manual_seed(0)
    return quantized(traced(module, x), x, scheme=Scheme().with_numbers(numbers))


@pytest.mark.parametrize("device", DEVICES)
def test_all_of_a_plain_network_runs_on_the_npu(device: str) -> None:
    model, profile = model_of(Plain()), load_profile(device)
    found = measure(Written("model.tflite", write_tflite(model), model, (), ()), profile)
    figures = found.by_key
    assert figures["npu_macs_share"] == figures["npu_ops_share"] == 1 and figures["cpu_ops"] == 0
    assert found.version.startswith("5.2") and {placement.where for placement in found.placements} == {"npu"}
    assert figures["inference_ms"] == pytest.approx(figures["cycles"] / (1e3 * (profile.compute.clock_mhz or 0)))
    weights = sum(model.graph.constants[node.inputs[1]].size for node in model.graph.nodes if len(node.inputs) == 3)
    assert figures["weight_bytes"] >= weights + 8 * 8 * 8  # the mean over 8x8 pixels is a convolution there
    assert (figures["dram_bytes"] > 0) != (figures["flash_bytes"] > 0)
    assert found.files["model_vela.tflite"][4:8] == b"TFL3"


@pytest.mark.parametrize("numbers", [NumberFormat.W8A8, NumberFormat.W8A8_PER_TENSOR, NumberFormat.W8A16])
@pytest.mark.parametrize("device", ["ethos-u55-128", "ethos-u85-256"])
def test_every_number_format_of_the_profile_runs_on_the_npu(device: str, numbers: NumberFormat) -> None:
    profile = load_profile(device)
    assert numbers in profile.quantization.formats
    content = write_tflite(model_of(Plain(), numbers))
    assert compile_operators("model.tflite", content, profile).ops_share == 1


@pytest.mark.parametrize("device", ["ethos-u55-128", "ethos-u85-256"])
def test_what_the_gate_says_is_what_vela_does(device: str) -> None:
    model, profile = model_of(Mixed()), load_profile(device)
    content, table = write_tflite(model), constraint_table(profile.compute.isa)
    found = compile_operators("model.tflite", content, profile)
    clashing = [operator.name for operator in read_operators(content) if [*find_clashes(operator, table)]]
    assert list(found.on_cpu) == clashing and 0 < len(clashing) < len(found.operators)
    placed = measure(Written("model.tflite", content, model, (), ()), profile).placements
    on_cpu = [placement for placement in placed if placement.where == "cpu"]
    assert all(placement.why and "without a reason" not in placement.why for placement in on_cpu)
    assert all(placement.instead for placement in on_cpu)


def test_the_share_counts_layers_on_the_cpu_which_vela_does_not() -> None:
    """A depthwise convolution of stride 4 falls off an Ethos-U55."""
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 4, 4, groups=8))
    model, profile = model_of(module), load_profile("ethos-u55-128")
    found = compile_operators("model.tflite", write_tflite(model), profile)
    costs = [cost.macs for cost in node_costs(model.graph)]
    assert found.macs == sum(costs) and found.summary.npu_macs == costs[0]
    assert found.macs_share == pytest.approx(costs[0] / sum(costs)) and len(found.on_cpu) == 1


def test_vela_takes_a_float_file_for_one_without_work_which_is_refused_here() -> None:
    content = write_tflite(traced(Plain(), X))
    profile = load_profile("ethos-u55-128")
    compiled = compile_file(content, vela_options(profile))
    assert read_summary(compiled.summary).cycles == 0 and not any(row.on_npu for row in read_layers(compiled.layers))
    with pytest.raises(UnsupportedError, match="computes in float: nothing of it would run on the NPU"):
        compile_operators("model.tflite", content, profile)


def test_4_bit_weights_are_refused_before_vela_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.backends.vela.measure.compile_file", lambda *_: pytest.fail("Vela was started"))
    with pytest.raises(UnsupportedError, match="weights of 4 bits"):
        compile_operators(
            "model.tflite", write_tflite(model_of(Plain(), NumberFormat.W4A8)), load_profile("ethos-u55-128")
        )


@pytest.mark.parametrize(
    ("made", "shape"), [(nn.Upsample(scale_factor=2), (2, 4, 8, 8)), (nn.Conv2d(4, 4, 7, 4, 3), (1, 4, 16, 16))]
)
def test_what_vela_ends_with_an_error_on_is_refused_by_the_profile(made: nn.Module, shape: tuple[int, ...]) -> None:
    from toolchain.profiles import device_findings

    x, profile = normal(*shape), load_profile("ethos-u55-128")
    model = model_of(made, x=x)
    with pytest.raises(UnsupportedError, match="could not run on NPU"):
        compile_file(write_tflite(model), vela_options(profile))
    assert device_findings(model.graph, profile)


def test_a_deployment_publishes_the_compiled_file_and_keeps_it_out_of_the_bundle(tmp_path: Path) -> None:
    samples = samples_from(np.random.default_rng(0).normal(size=(24, 3, 16, 16)).astype(np.float32))
    torch.manual_seed(0)
    done = deploy((Plain(), torch.from_numpy(X)), target="ethos-u55-128", calibration=samples, out=tmp_path, store=None)
    assert (tmp_path / "model_vela.tflite").read_bytes()[4:8] == b"TFL3"
    assert not list(done.bundle.rglob("*vela*")) and done.bundle.is_dir()
    judged = {verdict.gate: verdict.passed for verdict in done.validation.verdicts}
    assert judged["npu_macs_share"] and judged["npu_ops_share"] and judged["sram_bytes"] and judged["flash_bytes"]


def test_the_compiled_file_runs_on_no_interpreter_here(tmp_path: Path) -> None:
    found = compile_operators("model.tflite", write_tflite(model_of(Plain())), load_profile("ethos-u55-128"))
    path = tmp_path / "model_vela.tflite"
    path.write_bytes(found.content)
    code = (
        "import sys; from ai_edge_litert.interpreter import Interpreter as I; "
        "i = I(model_path=sys.argv[1]); i.allocate_tensors(); i.invoke()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode and "ethos-u" in done.stderr
