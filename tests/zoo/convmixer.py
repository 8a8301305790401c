"""ConvMixer (Trockman and Kolter, arXiv 2201.09792): GELU before the batch norm, so that it folds into nothing."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.networks import pictures, settled


class Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


def conv_mixer(channels: int, depth: int, *, kernel: int, patch: int, classes: int) -> nn.Sequential:
    """(N, 3, H, W) -> (N, classes)."""
    return nn.Sequential(
        nn.Conv2d(3, channels, kernel_size=patch, stride=patch),
        nn.GELU(),
        nn.BatchNorm2d(channels),
        *[
            nn.Sequential(
                Residual(
                    nn.Sequential(
                        nn.Conv2d(channels, channels, kernel, groups=channels, padding="same"),
                        nn.GELU(),
                        nn.BatchNorm2d(channels),
                    )
                ),
                nn.Conv2d(channels, channels, kernel_size=1),
                nn.GELU(),
                nn.BatchNorm2d(channels),
            )
            for _ in range(depth)
        ],
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )


def convmixer(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(conv_mixer(96, 4, kernel=5, patch=4, classes=100), images), (images,)
