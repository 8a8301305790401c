"""RegNetY (Radosavovic et al., arXiv 2003.13678, section 5): grouped bottlenecks of even width, with excitation."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.layers import SqueezeExcitation, conv_norm
from tests.zoo.networks import pictures, settled


class YBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int, group_width: int) -> None:
        super().__init__()
        self.f = nn.Sequential(
            conv_norm(inputs, outputs),
            conv_norm(outputs, outputs, 3, stride=stride, groups=outputs // group_width),
            SqueezeExcitation(outputs, max(1, inputs // 4)),
            conv_norm(outputs, outputs, activation=None),
        )
        self.last_norm = [self.f[-1][1]]
        same = stride == 1 and inputs == outputs
        self.proj = None if same else conv_norm(inputs, outputs, stride=stride, activation=None)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation((x if self.proj is None else self.proj(x)) + self.f(x))


class RegNet(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, widths: tuple[int, ...], depths: tuple[int, ...], group_width: int, classes: int) -> None:
        super().__init__()
        self.stem = conv_norm(3, 32, 3, stride=2)
        blocks, channels = [], 32
        for width, depth in zip(widths, depths, strict=True):
            for index in range(depth):
                blocks.append(YBlock(channels, width, stride=1 if index else 2, group_width=group_width))
                channels = width
        self.trunk = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.trunk(self.stem(images))).flatten(1))


def regnet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(RegNet(widths=(24, 56, 152), depths=(1, 2, 3), group_width=8, classes=100), images), (images,)
