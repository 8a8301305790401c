"""ConvNeXt (Liu et al., arXiv 2201.03545): 7x7 depthwise, layer norm over channels, linear layers, layer scale."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.networks import pictures


class ChannelsFirstNorm(nn.LayerNorm):
    """Layer norm over the channels of (N, C, H, W), channels last and back."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Block(nn.Module):
    def __init__(self, channels: int, layer_scale: float = 0.3) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(layer_scale * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        x = self.dwconv(x).permute(0, 2, 3, 1)
        x = self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        return identity + (self.gamma * x).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, depths: tuple[int, ...], widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=4), ChannelsFirstNorm(widths[0], eps=1e-6)]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage:
                layers += [ChannelsFirstNorm(widths[stage - 1], eps=1e-6), nn.Conv2d(widths[stage - 1], width, 2, 2)]
            layers += [Block(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.features(images).mean([-2, -1])))


def convnext(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = ConvNeXt(depths=(1, 1, 2, 1), widths=(24, 48, 96, 192), classes=100)
    return module.eval(), (pictures(count, 3, 64),)
