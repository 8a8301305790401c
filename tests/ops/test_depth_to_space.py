"""Channels that become pixels."""

from __future__ import annotations

from torch import nn

from tests.ops.harness import check, normal, operators
from toolchain.graph import Op

IMAGE = normal(2, 12, 5, 4)


def test_the_convolution_before_it_takes_the_order_of_the_file():
    graph = check(nn.Sequential(nn.Conv2d(12, 27, 3), nn.PixelShuffle(3)), IMAGE, ops={Op.DEPTH_TO_SPACE})
    assert operators(graph) == {"CONV_2D": 1, "DEPTH_TO_SPACE": 1}


def test_through_a_batch_norm_and_an_activation():
    layers = (nn.ConvTranspose2d(12, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.PixelShuffle(2))
    assert operators(check(nn.Sequential(*layers), IMAGE)) == {"TRANSPOSE_CONV": 1, "TANH": 1, "DEPTH_TO_SPACE": 1}


def test_one_channel_has_one_order():
    assert operators(check(nn.PixelShuffle(2), normal(1, 4, 3, 3))) == {"DEPTH_TO_SPACE": 1}


def test_channels_that_nothing_can_reorder_are_gathered():
    assert operators(check(nn.PixelShuffle(2), IMAGE)) == {"GATHER": 1, "DEPTH_TO_SPACE": 1}


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.shuffle = nn.Conv2d(12, 12, 1), nn.PixelShuffle(2)

    def forward(self, x):
        x = self.conv(x)
        return self.shuffle(x), x


def test_a_convolution_that_others_read_keeps_its_order():
    assert operators(check(_Twice(), IMAGE)) == {"CONV_2D": 1, "GATHER": 1, "DEPTH_TO_SPACE": 1}


def test_a_grouped_convolution_keeps_its_order():
    assert "GATHER" in operators(check(nn.Sequential(nn.Conv2d(12, 12, 1, groups=3), nn.PixelShuffle(2)), IMAGE))
