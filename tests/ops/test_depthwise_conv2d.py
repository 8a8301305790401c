"""Depthwise convolutions, with more than one output a channel too."""

from __future__ import annotations

import pytest
from torch import nn

from tests.ops.harness import check, normal, operators
from toolchain.graph import Op


@pytest.mark.parametrize("features", [4, 8, 12])
@pytest.mark.parametrize("window", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (3, 1)}])
def test_images(features, window):
    graph = check(nn.Conv2d(4, features, 3, groups=4, **window), normal(2, 4, 9, 8), ops={Op.DEPTHWISE_CONV2D})
    assert "TRANSPOSE" not in operators(graph)


def test_sequences():
    graph = check(nn.Conv1d(4, 8, 3, groups=4, stride=2, padding=1), normal(2, 4, 11), ops={Op.DEPTHWISE_CONV2D})
    assert "TRANSPOSE" not in operators(graph)
