"""Maxima over windows, dilated and adaptive ones too."""

from __future__ import annotations

import itertools

import pytest
from torch import nn

from tests.ops.harness import check, normal, operators
from toolchain.graph import Op

IMAGE, SEQUENCE = normal(2, 4, 9, 8), normal(2, 4, 11)


@pytest.mark.parametrize(("stride", "padding", "ceil_mode"), list(itertools.product((1, 2, 3), (0, 1), (False, True))))
def test_images(stride, padding, ceil_mode):
    graph = check(nn.MaxPool2d(3, stride, padding, ceil_mode=ceil_mode), IMAGE, ops={Op.MAX_POOL2D})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize(("stride", "padding", "ceil_mode"), [(1, 0, False), (2, 1, False), (2, 1, True)])
def test_dilated(stride, padding, ceil_mode):
    graph = check(nn.MaxPool2d(3, stride, padding, 2, ceil_mode=ceil_mode), IMAGE, ops={Op.MAXIMUM})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("size", [(3, 4), (2, 3), (5, 5), (None, 3)])
def test_adaptive(size):
    graph = check(nn.AdaptiveMaxPool2d(size), IMAGE, ops={Op.MAX_POOL2D})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("pool", [nn.MaxPool1d(3, 2, 1), nn.MaxPool1d(2, dilation=3), nn.AdaptiveMaxPool1d(4)])
def test_sequences(pool):
    assert "TRANSPOSE" not in operators(check(pool, SEQUENCE))
