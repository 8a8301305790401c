"""Batch norms of any rank: folded into the layer before, or one multiplier and offset a channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.ops.harness import check, normal, operators
from toolchain.graph import Op

NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
SHAPES = {2: (3, 8), 3: (2, 8, 7), 4: (2, 8, 5, 6), 5: (2, 8, 3, 4, 2)}


def _trained(rank: int, **options) -> nn.Module:
    torch.manual_seed(0)
    norm = NORMS[rank](8, **options)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 3.0)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, -1.5, 1.5)
    return norm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rank", NORMS)
def test_alone(rank, affine):
    graph = check(_trained(rank, affine=affine), normal(*SHAPES[rank]))
    assert Op.BATCH_NORM not in {node.op for node in graph.nodes}


@pytest.mark.parametrize("rank", [2, 4])
def test_before_a_layer_its_channels_keep_their_precision(rank):
    """Multipliers a thousand apart, each exact to a step of its own channel: weights have a scale a channel."""
    norm = _trained(rank)
    with torch.no_grad():
        norm.running_var.copy_(torch.logspace(-4, 2, 8))
        x = normal(*SHAPES[rank]) * np.sqrt(np.logspace(-4, 2, 8)).reshape(-1, *[1] * (rank - 2))
    check(norm, x.astype(np.float32))


def test_it_folds_into_a_linear_layer_and_a_convolution():
    for module, shape in (
        (nn.Sequential(nn.Linear(4, 8), _trained(2)), (3, 4)),
        (nn.Sequential(nn.Conv1d(4, 8, 3), _trained(3)), (2, 4, 9)),
        (nn.Sequential(nn.Conv2d(4, 8, 3), _trained(4)), (2, 4, 9, 8)),
        (nn.Sequential(nn.ConvTranspose2d(4, 8, 2, 2), _trained(4)), (2, 4, 5, 4)),
    ):
        graph = check(module, normal(*shape))
        layers = [node for node in graph.nodes if node.op is not Op.RESHAPE]
        assert len(layers) == 1 and "TRANSPOSE" not in operators(graph)


def test_vectors_between_layers():
    check(nn.Sequential(_trained(2), nn.Linear(8, 4)), normal(3, 8), ops={Op.LINEAR})
