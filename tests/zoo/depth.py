"""Depth from one picture (after Ranftl et al., arXiv 1907.01341): fused stages, bilinear upsampling on the corners."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import centred, kept_in_scale, pictures, settled


class ResidualConvUnit(nn.Module):
    """The ReLU stands before the convolution, so the sum's own sign is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.last_layer = [self.conv2]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(F.relu(x)))) + x


class FeatureFusion(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unit1 = ResidualConvUnit(channels)
        self.unit2 = ResidualConvUnit(channels)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            x = x + self.unit1(skip)
        return F.interpolate(self.unit2(x), scale_factor=2, mode="bilinear", align_corners=True)


class DepthNet(nn.Module):
    """(N, 3, H, W) -> (N, H, W), inverse depth, never negative."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(conv_norm(i, o, 3, stride=2), conv_norm(o, o, 3))
            for i, o in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.reassemble = nn.ModuleList(nn.Conv2d(w, 2 * width, 3, padding=1, bias=False) for w in widths)
        self.fusion = nn.ModuleList(FeatureFusion(2 * width) for _ in widths)
        self.head = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(True),
            nn.Conv2d(width, 1, 1),
            nn.ReLU(True),
        )

    def forward(self, images: Tensor) -> Tensor:
        stages, x = [], images
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        found = [conv(x) for conv, x in zip(self.reassemble, stages, strict=True)]
        x = self.fusion[2](found[2])
        for index in (1, 0):
            x = self.fusion[index](x, found[index])
        return self.head(x).squeeze(1)


def depth(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    module = settled(kept_in_scale(DepthNet(width=12), last=0.3), images)
    centred(module, module.head[2], images)
    module.head[2].bias.data.add_(2.0)  # most places are seen at some depth
    return module, (images,)
