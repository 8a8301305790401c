"""VGG-11 (Simonyan and Zisserman, arXiv 1409.1556): 3x3 convolutions, pools, and three linear layers on the flat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.networks import kept_in_scale, pictures

ROWS = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")


class VGG(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, divisor: int = 1, hidden: int = 4096, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for row in ROWS:
            if row == "M":
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            else:
                layers += [nn.Conv2d(channels, int(row) // divisor, 3, padding=1), nn.ReLU(inplace=True)]
                channels = int(row) // divisor
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(channels * 4, hidden),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.avgpool(self.features(images))
        return self.classifier(torch.flatten(x, 1))


def vgg11(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return kept_in_scale(VGG(divisor=4, hidden=256, classes=100)), (pictures(count, 3, 64),)
