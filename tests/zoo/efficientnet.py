"""EfficientNet-B0 (Tan and Le, arXiv 1905.11946, table 1): inverted bottlenecks with SiLU, squeeze and excitation."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.layers import SqueezeExcitation, conv_norm
from tests.zoo.mobilenet_v2 import rounded
from tests.zoo.networks import pictures, settled

# expansion, channels, repeats, stride of the first, kernel
ROWS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class MBConv(nn.Module):
    """Squeezed to a quarter of the block's inputs, not of its hidden channels."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [conv_norm(inputs, hidden, activation=nn.SiLU)] if expansion != 1 else []
        layers.append(conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden, activation=nn.SiLU))
        layers.append(SqueezeExcitation(hidden, max(1, inputs // 4), activation=nn.SiLU))
        layers.append(conv_norm(hidden, outputs, activation=None))
        self.block = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs
        self.last_norm = [self.block[-1][1]] if self.is_residual else []

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x if self.is_residual else self.block(x)


class EfficientNet(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, width: float = 1.0, depth: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        channels = rounded(32 * width)
        layers: list[nn.Module] = [conv_norm(3, channels, 3, stride=2, activation=nn.SiLU)]
        for expansion, wide, repeats, first_stride, kernel in ROWS:
            outputs = rounded(wide * width)
            for index in range(-int(-repeats * depth // 1)):
                stride = first_stride if index == 0 else 1
                layers.append(MBConv(channels, outputs, expansion=expansion, kernel=kernel, stride=stride))
                channels = outputs
        last = 4 * channels
        self.features = nn.Sequential(*layers, conv_norm(channels, last, activation=nn.SiLU))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.avgpool(self.features(images)).flatten(start_dim=1)
        return self.fc(self.dropout(x))


def efficientnet_b0(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(EfficientNet(width=0.5, depth=0.5, classes=100), images), (images,)
