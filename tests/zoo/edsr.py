"""EDSR-like super-resolution (Lim et al., arXiv 1707.02921), upsampled by nearest neighbours and convolved."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.networks import kept_in_scale, pictures


class ResBlock(nn.Module):
    def __init__(self, channels: int, scale: float = 0.1) -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(True), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x).mul(self.scale)


class EDSR(nn.Module):
    """(N, 3, H, W) -> (N, 3, 4 H, 4 W)."""

    def __init__(self, *, channels: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(*[ResBlock(channels) for _ in range(blocks)])
        self.conv_up1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_up2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        shallow = self.head(images)
        x = shallow + self.body(shallow)
        x = self.lrelu(self.conv_up1(F.interpolate(x, scale_factor=2, mode="nearest")))
        x = self.lrelu(self.conv_up2(F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(x)


def edsr(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return kept_in_scale(EDSR(channels=16, blocks=3), slope=0.2), (pictures(count, 3, 24),)
