"""RepVGG as trained (Ding et al., arXiv 2101.03697): a 3x3, a 1x1 and an identity branch, each with its norm, added."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


class RepVGGBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dense = conv_norm(inputs, outputs, 3, stride=stride, activation=None)
        self.pointwise = conv_norm(inputs, outputs, stride=stride, activation=None)
        self.identity = nn.BatchNorm2d(inputs) if stride == 1 and inputs == outputs else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        result = self.dense(x) + self.pointwise(x)
        if self.identity is not None:
            result = result + self.identity(x)
        return self.relu(result)


class RepVGG(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, widths: tuple[int, ...], depths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        blocks, channels = [], 3
        for width, depth in zip(widths, depths, strict=True):
            for index in range(depth):
                blocks.append(RepVGGBlock(channels, width, 1 if index else 2))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.gap = nn.AdaptiveAvgPool2d(output_size=1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.gap(self.blocks(images))
        return self.linear(x.view(x.size(0), -1))


def repvgg(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(RepVGG(widths=(16, 24, 48, 96), depths=(1, 2, 3, 1), classes=100), images), (images,)
