"""ESPCN (Shi et al., arXiv 1609.05158): tanh layers at low resolution, then channels shuffled into pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.networks import kept_in_scale, pictures


class ESPCN(nn.Module):
    """(N, 1, H, W) -> (N, 1, scale * H, scale * W), values in [0, 1]."""

    def __init__(self, *, scale: int) -> None:
        super().__init__()
        self.feature_maps = nn.Sequential(
            nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh()
        )
        self.sub_pixel = nn.Sequential(nn.Conv2d(32, scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, luminance: Tensor) -> Tensor:
        return torch.clamp_(self.sub_pixel(self.feature_maps(luminance)), 0.0, 1.0)


def espcn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = kept_in_scale(ESPCN(scale=3), slope=1.0)
    module.sub_pixel[0].weight.data.mul_(0.3)
    nn.init.constant_(module.sub_pixel[0].bias, 0.5)
    return module, (np.clip(0.5 + 0.3 * pictures(count, 1, 32), 0, 1),)
