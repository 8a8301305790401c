"""Zero-DCE (Guo et al., arXiv 2001.06826): a light curve for every pixel, applied again and again to brighten."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.networks import kept_in_scale, pictures


class ZeroDCE(nn.Module):
    """(N, 3, H, W) in [0, 1] -> (brightened picture, all curves (N, 3 steps, H, W))."""

    def __init__(self, *, width: int = 16, steps: int = 4) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.e_conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=True)
        self.e_conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=True)
        self.e_conv3 = nn.Conv2d(width, width, 3, 1, 1, bias=True)
        self.e_conv4 = nn.Conv2d(2 * width, width, 3, 1, 1, bias=True)
        self.e_conv5 = nn.Conv2d(2 * width, 3 * steps, 3, 1, 1, bias=True)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x1 = self.relu(self.e_conv1(images))
        x2 = self.relu(self.e_conv2(x1))
        x3 = self.relu(self.e_conv3(x2))
        x4 = self.relu(self.e_conv4(torch.cat([x2, x3], 1)))
        curves = torch.tanh(self.e_conv5(torch.cat([x1, x4], 1)))
        x = images
        for r in torch.split(curves, 3, dim=1):
            x = x + r * (torch.pow(x, 2) - x)
        return x, curves


def zero_dce(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return kept_in_scale(ZeroDCE()), (np.clip(0.4 + 0.2 * pictures(count, 3, 48), 0, 1),)
