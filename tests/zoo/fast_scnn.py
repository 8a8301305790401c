"""Fast-SCNN (Poudel et al., arXiv 1902.04502): a coarse branch with pooled pyramid added to a fine one."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(inputs, inputs, 3, stride=stride, groups=inputs, activation=None), conv_norm(inputs, outputs)
    )


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * inputs
        self.block = nn.Sequential(
            conv_norm(inputs, hidden),
            conv_norm(hidden, hidden, 3, stride=stride, groups=hidden),
            conv_norm(hidden, outputs, activation=None),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.is_residual else self.block(x)


class PyramidPooling(nn.Module):
    """Means over 1, 4, 9 and 36 parts of the picture; the parts of 3 and 6 overlap on a side of 4 or 8."""

    def __init__(self, channels: int, sizes: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(size) for size in sizes)
        self.convs = nn.ModuleList(conv_norm(channels, channels // 4) for _ in sizes)
        self.out = conv_norm(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        parts = [conv(pool(x)) for pool, conv in zip(self.pools, self.convs, strict=True)]
        parts = [F.interpolate(part, size, mode="bilinear", align_corners=True) for part in parts]
        return self.out(torch.cat([x, *parts], dim=1))


class FastSCNN(nn.Module):
    """(N, 3, H, W) -> (N, classes, H, W)."""

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.learning_to_downsample = nn.Sequential(conv_norm(3, 16, 3, stride=2), separable(16, 24, stride=2))
        self.features = nn.Sequential(Bottleneck(24, 32, 2), Bottleneck(32, 32, 1), PyramidPooling(32))
        self.dw_lower = conv_norm(32, 32, 3, groups=32)
        self.lower = conv_norm(32, 48, activation=None)
        self.higher = conv_norm(24, 48, activation=None)
        self.classifier = nn.Sequential(separable(48, 48), nn.Dropout(0.1), nn.Conv2d(48, classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        fine = self.learning_to_downsample(images)
        coarse = F.interpolate(self.features(fine), scale_factor=2, mode="bilinear", align_corners=True)
        x = F.relu(self.higher(fine) + self.lower(self.dw_lower(coarse)))
        return F.interpolate(self.classifier(x), images.shape[2:], mode="bilinear", align_corners=True)


def fast_scnn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(FastSCNN(classes=8), images), (images,)
