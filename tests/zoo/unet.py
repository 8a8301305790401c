"""U-Net (Ronneberger et al., arXiv 1505.04597): down by pools, up by transposed convolutions, skips concatenated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(inputs, outputs, 3), conv_norm(outputs, outputs, 3))


class Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2)
        self.conv = double_conv(2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], dim=1))


class UNet(nn.Module):
    """(N, 3, H, W) -> (N, classes, H, W)."""

    def __init__(self, *, width: int, depth: int, classes: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.inc = double_conv(3, width)
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), double_conv(w, 2 * w)) for w in widths[:-1])
        self.up = nn.ModuleList(Up(2 * w, w) for w in reversed(widths[:-1]))
        self.outc = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        skips = [self.inc(images)]
        for down in self.down:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
        return self.outc(x)


def unet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(UNet(width=8, depth=3, classes=4), images), (images,)
