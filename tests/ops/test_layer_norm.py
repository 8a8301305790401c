"""Layer, group and instance norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ops.harness import check, check_int8, normal, operators, traced
from toolchain.formats.onnx import OnnxRunner, check_onnx, write_onnx
from toolchain.graph import Op

ROWS, IMAGE = normal(2, 5, 8), normal(2, 8, 6, 5)


def _trained(module: nn.Module) -> nn.Module:
    """Weights and biases that are not one and zero."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return module


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm(8),
        nn.LayerNorm(8, bias=False),
        nn.LayerNorm((5, 8), eps=1e-3),
        nn.LayerNorm(8, elementwise_affine=False),
    ],
)
def test_layer_norm(module):
    check(_trained(module), ROWS, ops={Op.LAYER_NORM})


def test_a_bias_alone():
    bias = torch.from_numpy(normal(8, seed=1))
    check(lambda x: F.layer_norm(x, (8,), None, bias), ROWS, ops={Op.LAYER_NORM})


@pytest.mark.parametrize("opset", [13, 16, 18, 21])
def test_opsets(opset):
    module = _trained(nn.LayerNorm(8))
    graph = traced(module, ROWS)
    content = write_onnx(graph, opset=opset)
    assert check_onnx(content, graph) == []
    with torch.no_grad():
        wanted = module(torch.from_numpy(ROWS)).numpy()
    np.testing.assert_allclose(OnnxRunner(content, graph).run((ROWS,))[0], wanted, atol=1e-5)


class _ChannelsOfAnImage(nn.Module):
    """As ConvNeXt has it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(8, 8, 3, padding=1), _trained(nn.LayerNorm(8))

    def forward(self, x):
        return self.convolution(self.norm(self.convolution(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_channels_of_an_image_are_normalised_where_they_lie():
    graph = check(_ChannelsOfAnImage(), IMAGE, ops={Op.LAYER_NORM})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_group_norm_between_convolutions(groups):
    norm = _trained(nn.GroupNorm(groups, 8))
    graph = check(nn.Sequential(nn.Conv2d(8, 8, 1), norm, nn.Conv2d(8, 8, 1)), IMAGE, ops={Op.LAYER_NORM})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("x", [normal(2, 8), normal(2, 8, 7), normal(2, 8, 3, 4, 2)])
def test_group_norm_of_other_ranks(x):
    check(_trained(nn.GroupNorm(4, 8)), x, ops={Op.LAYER_NORM})


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm(affine):
    graph = check(_trained(nn.InstanceNorm2d(8, affine=affine)), IMAGE, ops={Op.LAYER_NORM})
    assert "TRANSPOSE" not in operators(graph)
    check(_trained(nn.InstanceNorm1d(8, affine=affine)), normal(2, 8, 7), ops={Op.LAYER_NORM})


def test_instance_norm_by_running_statistics_is_a_batch_norm():
    norm = _trained(nn.InstanceNorm2d(8, affine=True, track_running_stats=True))
    norm.running_var.uniform_(0.5, 2.0)
    check(norm, IMAGE)


def test_a_large_mean_does_not_swallow_the_variance():
    """The variance is that of what is centred: mean(x^2) - mean(x)^2 would be all rounding."""
    check(_trained(nn.LayerNorm(8)), normal(2, 5, 8) + 1000, ops={Op.LAYER_NORM}, int8=False, error=1e-3)


def _by_hand(x):
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6)


def test_a_norm_written_by_hand_needs_no_transpose():
    graph = check(nn.Sequential(nn.Conv2d(8, 8, 1), _Function(_by_hand), nn.Conv2d(8, 8, 1)), IMAGE)
    assert "TRANSPOSE" not in operators(graph)


class _Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_it_is_one_island_of_an_integer_network():
    graph = traced(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)), ROWS)
    assert len(check_int8(graph, ROWS).float_nodes) == 1
