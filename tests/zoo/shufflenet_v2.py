"""ShuffleNetV2 (Ma et al., arXiv 1807.11164, figure 3 c and d): half the channels pass, then all are shuffled."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        if stride == 2:
            self.branch1 = nn.Sequential(
                conv_norm(inputs, inputs, 3, stride=2, groups=inputs, activation=None), conv_norm(inputs, half)
            )
        self.branch2 = nn.Sequential(
            conv_norm(inputs if stride == 2 else half, half),
            conv_norm(half, half, 3, stride=stride, groups=half, activation=None),
            conv_norm(half, half),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, channels: tuple[int, ...], repeats: tuple[int, ...], last: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 24, 3, stride=2), nn.MaxPool2d(3, 2, 1))
        units, inputs = [], 24
        for outputs, count in zip(channels, repeats, strict=True):
            for index in range(count):
                units.append(ShuffleUnit(inputs, outputs, 1 if index else 2))
                inputs = outputs
        self.units = nn.Sequential(*units)
        self.conv5 = conv_norm(inputs, last)
        self.fc = nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv5(self.units(self.stem(images)))
        return self.fc(x.mean([2, 3]))


def shufflenet_v2(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 96)
    module = ShuffleNetV2(channels=(48, 96, 192), repeats=(2, 4, 2), last=256, classes=100)
    return settled(module, images), (images,)
