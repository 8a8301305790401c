"""ResNet-50 (He et al., arXiv 1512.03385, figure 5): bottlenecks of 1x1, 3x3 and 1x1 convolutions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, planes: int, *, stride: int = 1, groups: int = 1, base_width: int = 64) -> None:
        super().__init__()
        outputs, width = 4 * planes, int(planes * base_width / 64) * groups
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.last_norm = [self.bn3]
        self.relu = nn.ReLU(inplace=True)
        needs_projection = stride != 1 or inputs != outputs
        self.downsample = conv_norm(inputs, outputs, stride=stride, activation=None) if needs_projection else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


class BottleneckResNet(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(
        self,
        repeats: tuple[int, ...] = (3, 4, 6, 3),
        *,
        width: int = 64,
        groups: int = 1,
        base_width: int = 64,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, width, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1))
        blocks, channels = [], width
        for stage, count in enumerate(repeats):
            planes = width * 2**stage
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                blocks.append(Bottleneck(channels, planes, stride=stride, groups=groups, base_width=base_width))
                channels = 4 * planes
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.avgpool(self.blocks(self.stem(images))), 1))


def resnet50(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(BottleneckResNet(width=16, classes=100), images), (images,)
