"""SE-ResNet (Hu et al., arXiv 1709.01507): basic blocks whose channels are weighed by two linear layers."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


class SELayer(nn.Module):
    """Linear layers on the means, then the weights viewed as a picture of one pixel."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.size()
        weights = self.fc(self.avg_pool(x).view(batch, channels)).view(batch, channels, 1, 1)
        return x * weights.expand_as(x)


class SEBasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_norm(inputs, outputs, 3, stride=stride)
        self.conv2 = conv_norm(outputs, outputs, 3, activation=None)
        self.last_norm = [self.conv2[1]]
        self.se = SELayer(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, stride=stride, activation=None)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.se(self.conv2(self.conv1(x))) + self.shortcut(x))


class SEResNet(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, width: int, classes: int) -> None:
        super().__init__()
        self.stem = conv_norm(3, width, 3, stride=2)
        blocks = [SEBasicBlock(width, width, 1)]
        for stage in range(3):
            inputs = width * 2**stage
            blocks += [SEBasicBlock(inputs, 2 * inputs, 2), SEBasicBlock(2 * inputs, 2 * inputs, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.classes = nn.Linear(8 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(self.blocks(self.stem(images)).mean(dim=[-2, -1]))


def se_resnet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(SEResNet(width=16, classes=100), images), (images,)
