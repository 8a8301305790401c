"""Pixels that become channels."""

from __future__ import annotations

from torch import nn

from tests.ops.harness import check, normal, operators
from toolchain.graph import Op

IMAGE = normal(2, 3, 6, 8)


def test_the_convolution_behind_it_takes_the_order_of_the_file():
    graph = check(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 5, 3)), IMAGE, ops={Op.SPACE_TO_DEPTH})
    assert operators(graph) == {"SPACE_TO_DEPTH": 1, "CONV_2D": 1}


def test_channels_that_nothing_can_reorder_are_gathered():
    assert operators(check(nn.PixelUnshuffle(2), IMAGE)) == {"SPACE_TO_DEPTH": 1, "GATHER": 1}


def test_one_channel_has_one_order():
    assert operators(check(nn.PixelUnshuffle(2), normal(1, 1, 4, 6))) == {"SPACE_TO_DEPTH": 1}


def test_a_grouped_convolution_keeps_its_order():
    module = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 3, groups=4))
    assert "GATHER" in operators(check(module, IMAGE))
