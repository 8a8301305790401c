"""Inception v3 (Szegedy et al., arXiv 1512.00567): parallel branches, 1x7 and 7x1 kernels, pools that count padding."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.networks import pictures, settled

Pair = tuple[int, int]


class BasicConv2d(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int | Pair, stride: int = 1, padding: int | Pair = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class InceptionA(nn.Module):
    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 16, 1)
        self.branch5x5 = nn.Sequential(BasicConv2d(inputs, 12, 1), BasicConv2d(12, 16, 5, padding=2))
        self.branch3x3 = nn.Sequential(
            BasicConv2d(inputs, 16, 1), BasicConv2d(16, 24, 3, padding=1), BasicConv2d(24, 24, 3, padding=1)
        )
        self.branch_pool = BasicConv2d(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        return torch.cat([self.branch1x1(x), self.branch5x5(x), self.branch3x3(x), pooled], 1)


class InceptionB(nn.Module):
    """Halves the size."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 96, 3, stride=2)
        self.branch3x3dbl = nn.Sequential(
            BasicConv2d(inputs, 16, 1), BasicConv2d(16, 24, 3, padding=1), BasicConv2d(24, 24, 3, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch3x3(x), self.branch3x3dbl(x), F.max_pool2d(x, kernel_size=3, stride=2)], 1)


class InceptionC(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, outputs, 1)
        self.branch7x7 = nn.Sequential(
            BasicConv2d(inputs, hidden, 1),
            BasicConv2d(hidden, hidden, (1, 7), padding=(0, 3)),
            BasicConv2d(hidden, outputs, (7, 1), padding=(3, 0)),
        )
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = BasicConv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1x1(x), self.branch7x7(x), self.branch_pool(self.pool(x))], 1)


class InceptionE(nn.Module):
    """A branch forks once more at its end."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3_2a = BasicConv2d(64, 64, (1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(64, 64, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        forked = self.branch3x3_1(x)
        forked = torch.cat([self.branch3x3_2a(forked), self.branch3x3_2b(forked)], 1)
        return torch.cat([self.branch1x1(x), forked], 1)


class Inception(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            BasicConv2d(3, 16, 3, stride=2),
            BasicConv2d(16, 16, 3),
            BasicConv2d(16, 32, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
            BasicConv2d(32, 48, 3),
        )
        self.mixed = nn.Sequential(
            InceptionA(48, 8),
            InceptionA(64, 16),
            InceptionB(72),
            InceptionC(192, 32, 64),
            InceptionC(192, 40, 64),
            InceptionE(192),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(192, classes)

    def forward(self, images: Tensor) -> Tensor:
        # the channels' own means and deviations, as the published weights want them
        channels = [images[:, c : c + 1] * scale + shift for c, (scale, shift) in enumerate(TRANSFORM)]
        x = self.mixed(self.stem(torch.cat(channels, 1)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


TRANSFORM = ((0.458, -0.03), (0.448, -0.088), (0.45, -0.188))


def inception(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 80)
    return settled(Inception(classes=100), images), (images,)
