"""Averages over windows: what is counted, what divides, windows of several sizes."""

from __future__ import annotations

import itertools

import pytest
from torch import nn

from tests.ops.harness import check, normal, operators
from toolchain.graph import Op

IMAGE, SEQUENCE = normal(2, 4, 9, 8), normal(2, 4, 11)


@pytest.mark.parametrize(
    ("stride", "padding", "ceil_mode", "counts", "divisor"),
    list(itertools.product((2, 3), (0, 1), (False, True), (False, True), (None, 5, 9))),
)
def test_images(stride, padding, ceil_mode, counts, divisor):
    pool = nn.AvgPool2d(3, stride, padding, ceil_mode, counts, divisor)
    graph = check(pool, IMAGE, ops={Op.AVG_POOL2D})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("size", [(3, 4), (2, 3), (5, 5), (None, 3), (12, 8)])
def test_adaptive(size):
    graph = check(nn.AdaptiveAvgPool2d(size), IMAGE, ops={Op.AVG_POOL2D})
    assert "TRANSPOSE" not in operators(graph)


def test_adaptive_to_one_value_is_a_mean():
    check(nn.AdaptiveAvgPool2d(1), IMAGE, ops={Op.MEAN})


@pytest.mark.parametrize("pool", [nn.AvgPool1d(3, 2, 1), nn.AvgPool1d(3, 2, 1, True, False), nn.AdaptiveAvgPool1d(4)])
def test_sequences(pool):
    assert "TRANSPOSE" not in operators(check(pool, SEQUENCE))
