"""What a runtime computes in float although the file has none is said."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from toolchain import Calibrate, Export, Quantize, Trace, samples_from, validate
from toolchain.graph import parse_graph
from toolchain.quantization import NumberFormat, Scheme, assign_params
from toolchain.targets import Gates
from toolchain.validation.execution import island_notes


def notes(module: nn.Module) -> tuple[str, ...]:
    random = np.random.default_rng(0)
    samples = samples_from(random.normal(size=(12, 3, 8, 8)).astype(np.float32), calibration_count=8, judging_count=4)
    traced = Trace(example_inputs=samples.first_inputs())(module)
    return validate(Export()(Quantize()(Calibrate(samples=samples)(traced))), samples, Gates()).notes


def test_ops_without_a_fast_integer_kernel_are_named_for_each_runtime():
    torch.manual_seed(0)
    found = notes(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish()))
    assert any("onnxruntime" in line and "HardSigmoid" in line for line in found)
    assert any("XNNPACK" in line and "HARD_SWISH" in line for line in found)


def test_a_plain_network_needs_no_note():
    torch.manual_seed(0)
    assert notes(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))) == ()


def test_float_islands_are_told_with_reason_and_place():
    graph = parse_graph(
        "input x: float32[1,4]\nconstant w: float32[4,4]\na = sin(x)\nb = linear(a, w)\nc = sin(b)\nd = sin(c)\n"
        "y = linear(d, w)\noutput y"
    )
    model = assign_params(graph, dict.fromkeys(graph.activations, (-1.0, 1.0)), Scheme())
    (note,) = island_notes(model)
    assert note == "float island: sin has no integer kernel: a [(top level)], c [(top level)] and 1 more"
    assert list(island_notes(assign_params(graph, {}, Scheme().with_numbers(NumberFormat.DYNAMIC_INT8)))) == []
