"""What a runtime computes in float although the file has none is said."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from toolchain import Calibrate, Export, Quantize, Trace, samples_from, validate
from toolchain.targets import Gates


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
