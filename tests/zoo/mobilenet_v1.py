"""MobileNetV1 (Howard et al., arXiv 1704.04861, table 1): depthwise separable convolutions in a row."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled

# channels and stride of each separable convolution
ROWS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        channels = int(32 * width)
        layers = [conv_norm(3, channels, 3, stride=2)]
        for wide, stride in ROWS:
            outputs = int(wide * width)
            layers += [conv_norm(channels, channels, 3, stride=stride, groups=channels), conv_norm(channels, outputs)]
            channels = outputs
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.features(images)
        return self.classifier(x.view(x.size(0), -1))


def mobilenet_v1(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 96)
    return settled(MobileNetV1(width=0.25, classes=2), images), (images,)
