"""Small networks as files for a microcontroller, with golden samples; what tests here need of the interpreter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from tests.ops.harness import quantized, traced
from toolchain.backends import Written
from toolchain.backends.tflite_micro import missing
from toolchain.devices.bundle import golden_rows
from toolchain.devices.golden import Samples
from toolchain.engine.run import predict
from toolchain.formats.tflite import write_tflite
from toolchain.quantization import NumberFormat, QuantizedGraph, Scheme

needs_micro = pytest.mark.skipif(missing() is not None, reason="tflite-micro is not installed")


def int8_model(module: nn.Module, inputs: np.ndarray, numbers: NumberFormat = NumberFormat.W8A8) -> QuantizedGraph:
    """The module in integers, with the ranges of `inputs`."""
    return quantized(traced(module, inputs), inputs, scheme=Scheme().with_numbers(numbers))


def written(model: QuantizedGraph, *inputs: np.ndarray, content: bytes | None = None) -> Written:
    """The model's file and golden samples of it."""
    content = content or write_tflite(model)
    samples = Samples(tuple((x,) for x in inputs), tuple(tuple(predict(model.graph, [(x,)])) for x in inputs))
    return Written("model.tflite", content, model, *golden_rows("model.tflite", content, model, samples))


def drawn(*shape: int, count: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(np.float32) for _ in range(count)]


def convolutional() -> nn.Module:
    """A keyword spotter in small: a convolution, depthwise and pointwise ones, a mean, a linear layer."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 6)).eval()


def autoencoder(values: int | None = None, width: int = 64, inputs: int = 256, depth: int = 4) -> nn.Module:
    """Linear layers; with `values`, so many different ones a weight."""
    torch.manual_seed(0)
    sizes = [inputs, *[width] * depth, inputs]
    layers: list[nn.Module] = []
    for first, second in pairwise(sizes):
        layers += [nn.Linear(first, second), nn.ReLU()]
    network = nn.Sequential(*layers[:-1]).eval()
    if values is not None:
        share_weights(network, values)
    return network


def share_weights(network: nn.Module, values: int) -> None:
    """Round every weight to `values` evenly spaced ones, its extremes among them."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                low, high = parameter.min(), parameter.max()
                step = (high - low) / (values - 1)
                parameter.copy_(low + step * torch.round((parameter - low) / step))
