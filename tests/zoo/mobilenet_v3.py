"""MobileNetV3-Small (Howard et al., arXiv 1905.02244, table 2): hardswish, squeeze and excitation, 5x5 kernels."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.layers import SqueezeExcitation, conv_norm
from tests.zoo.mobilenet_v2 import rounded
from tests.zoo.networks import pictures, settled

# kernel, expanded channels, channels, squeeze and excitation, activation, stride
ROWS = (
    (3, 16, 16, True, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 2),
    (3, 88, 24, False, nn.ReLU, 1),
    (5, 96, 40, True, nn.Hardswish, 2),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 120, 48, True, nn.Hardswish, 1),
    (5, 144, 48, True, nn.Hardswish, 1),
    (5, 288, 96, True, nn.Hardswish, 2),
    (5, 576, 96, True, nn.Hardswish, 1),
    (5, 576, 96, True, nn.Hardswish, 1),
)


class Bottleneck(nn.Module):
    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int,
        excited: bool,
        activation: type[nn.Module],
        stride: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(conv_norm(inputs, hidden, activation=activation))
        layers.append(conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden, activation=activation))
        if excited:
            layers.append(SqueezeExcitation(hidden, rounded(hidden / 4), gate=nn.Hardsigmoid))
        layers.append(conv_norm(hidden, outputs, activation=None))
        self.block = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs
        self.last_norm = [self.block[-1][1]] if self.is_residual else []

    def forward(self, x: Tensor) -> Tensor:
        result = self.block(x)
        if self.is_residual:
            result += x
        return result


class MobileNetV3(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        channels = rounded(16 * width)
        layers: list[nn.Module] = [conv_norm(3, channels, 3, stride=2, activation=nn.Hardswish)]
        for kernel, wide, out, excited, activation, stride in ROWS:
            hidden, outputs = rounded(wide * width), rounded(out * width)
            layers.append(Bottleneck(channels, hidden, outputs, kernel, excited, activation, stride))
            channels = outputs
        last = 6 * channels
        self.features = nn.Sequential(*layers, conv_norm(channels, last, activation=nn.Hardswish))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(last, 2 * last), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(2 * last, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(images)).flatten(1))


def mobilenet_v3_small(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 96)
    return settled(MobileNetV3(width=0.5, classes=100), images), (images,)
