"""Means that batch norms determine, against those of normal inputs drawn in great number."""

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import Calibrate, Quantize, Trace, samples_from
from toolchain.engine.run import activations
from toolchain.errors import OptionError
from toolchain.quantization.normal_means import batch_norm_means

SAMPLES = 20_000
"""Drawn values a channel: a mean of theirs is off by its deviation / sqrt(SAMPLES), five times that at most."""


class Branches(nn.Module):
    """Batch norms before activations, a sum, an average and a flatten."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.activation = activation
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        added = self.activation(self.norms[0](x)) + self.norms[1](y)
        return torch.flatten(self.pool(added), 1)


def network(activation: nn.Module) -> Branches:
    torch.manual_seed(0)
    made = Branches(activation).eval()
    for norm in made.norms:
        nn.init.normal_(norm.weight, 0.5, 1.0)
        nn.init.normal_(norm.bias, 0.0, 2.0)
    return made


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.1), nn.Hardswish(), nn.Sigmoid()])
def test_means_are_those_of_normal_values(activation: nn.Module) -> None:
    made = network(activation)
    example = torch.zeros(1, 4, 2, 2)
    graph = Trace(example_inputs=(example, example))(made).graph
    means = batch_norm_means(graph)
    assert set(means) == set(graph.activations) - set(graph.input_names)
    random = np.random.default_rng(0)
    drawn = [random.standard_normal((SAMPLES // 4, 4, 2, 2), np.float32) for _ in range(2)]
    found = activations(graph, drawn)
    for name, mean in means.items():
        values = found[name].reshape(SAMPLES // 4, 4, -1)
        bound = 5 * values.std((0, 2)) / np.sqrt(values.shape[0] * values.shape[2]) + 1e-5
        assert (np.abs(values.mean((0, 2)) - mean) < bound).all(), name


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(x) + x)


def test_what_no_batch_norm_determines_has_no_mean() -> None:
    graph = Trace(example_inputs=(torch.zeros(1, 4, 2, 2),))(Sum().eval()).graph
    assert len(batch_norm_means(graph)) == 1


def test_biases_are_corrected_without_the_samples_means() -> None:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8, momentum=None),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8, momentum=None),
        nn.ReLU(),
    )
    inputs = torch.randn(200, 3, 12, 12)
    made(inputs)  # in training: the statistics follow
    samples = samples_from(inputs.numpy())
    calibrated = Calibrate(samples=samples)(Trace(example_inputs=(inputs[:1],))(made.eval()))
    measured, remembered = (
        Quantize(weight_bits=3, bias_means=means)(calibrated).corrections for means in ("samples", "batch_norm")
    )
    (last,) = set(remembered)  # what reads the input has no mean to correct with
    one, other = measured[last], remembered[last]
    assert np.abs(one - other).max() < 0.2 * np.abs(one).max()


def test_means_of_the_graph_as_traced_do_not_go_with_changes_to_it() -> None:
    with pytest.raises(OptionError, match="bias_means = batch_norm is of the graph as traced"):
        Quantize(bias_means="batch_norm", equalise=True, samples=samples_from(np.zeros((8, 3), np.float32)))
