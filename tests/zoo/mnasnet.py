"""MNASNet-A1-like (Tan et al., arXiv 1807.11626, figure 7): inverted residuals found by search, 3x3 and 5x5, ReLU."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled

# expansion, kernel, channels, repeats, stride of the first
ROWS = ((3, 3, 24, 3, 2), (3, 5, 40, 3, 2), (6, 5, 80, 2, 2), (6, 3, 96, 2, 1), (6, 5, 192, 2, 2), (6, 3, 320, 1, 1))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.apply_residual = inputs == outputs and stride == 1
        self.layers = nn.Sequential(
            conv_norm(inputs, hidden),
            conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden),
            conv_norm(hidden, outputs, activation=None),
        )
        self.last_norm = [self.layers[-1][1]] if self.apply_residual else []

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + x if self.apply_residual else self.layers(x)


class MNASNet(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, width: float, classes: int) -> None:
        super().__init__()
        channels, first = int(16 * width), int(32 * width)
        layers = [conv_norm(3, first, 3, stride=2), conv_norm(first, first, 3, groups=first)]
        layers.append(conv_norm(first, channels, activation=None))
        for expansion, kernel, wide, repeats, stride in ROWS:
            outputs = int(wide * width)
            for index in range(repeats):
                step = 1 if index else stride
                layers.append(InvertedResidual(channels, outputs, kernel=kernel, stride=step, expansion=expansion))
                channels = outputs
        self.layers = nn.Sequential(*layers, conv_norm(channels, 2 * channels))
        self.classifier = nn.Sequential(nn.Dropout(p=0.2), nn.Linear(2 * channels, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.layers(images).mean([2, 3]))


def mnasnet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(MNASNet(width=0.5, classes=100), images), (images,)
