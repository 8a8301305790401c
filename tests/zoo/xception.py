"""Xception (Chollet, arXiv 1610.02357): separable convolutions, the ReLU before them, pooled residual blocks."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


class SeparableConv2d(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(x)))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, pooled: bool) -> None:
        super().__init__()
        last = SeparableConv2d(outputs, outputs)
        layers = [nn.ReLU(), SeparableConv2d(inputs, outputs), nn.ReLU(), last]
        self.layers = nn.Sequential(*layers, *([nn.MaxPool2d(3, stride=2, padding=1)] if pooled else []))
        self.last_norm = [last.norm]
        self.skip = conv_norm(inputs, outputs, stride=2, activation=None) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.skip(x)


class Xception(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 16, 3, stride=2), conv_norm(16, 32, 3))
        self.blocks = nn.Sequential(
            Block(32, 64, pooled=True),
            Block(64, 96, pooled=True),
            Block(96, 96, pooled=False),
            Block(96, 96, pooled=False),
            Block(96, 160, pooled=True),
        )
        self.tail = nn.Sequential(SeparableConv2d(160, 256), nn.ReLU(inplace=True))
        self.fc = nn.Linear(256, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.tail(self.blocks(self.stem(images)))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def xception(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(Xception(classes=100), images), (images,)
