"""MobileFaceNet (Chen et al., arXiv 1804.07573): PReLU, a depthwise layer as wide as the picture, a unit vector."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.networks import pictures, settled


def conv_prelu(inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.PReLU(outputs))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.layers = nn.Sequential(
            conv_prelu(inputs, hidden),
            conv_prelu(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.is_residual = stride == 1 and inputs == outputs
        self.last_norm = [self.layers[-1]] if self.is_residual else []

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class MobileFaceNet(nn.Module):
    """(N, 3, 64, 64) -> (N, embedding) of length 1."""

    def __init__(self, *, width: int = 32, embedding: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_prelu(3, width, 3, stride=2),
            conv_prelu(width, width, 3, groups=width),
            Bottleneck(width, width, stride=2, expansion=2),
            Bottleneck(width, width, stride=1, expansion=2),
            Bottleneck(width, 2 * width, stride=2, expansion=4),
            Bottleneck(2 * width, 2 * width, stride=1, expansion=2),
            Bottleneck(2 * width, 2 * width, stride=1, expansion=2),
            conv_prelu(2 * width, 4 * width),
        )
        channels = 4 * width
        self.global_depthwise = nn.Sequential(
            nn.Conv2d(channels, channels, 8, groups=channels, bias=False), nn.BatchNorm2d(channels)
        )
        self.embed = nn.Linear(channels, embedding, bias=False)
        self.norm = nn.BatchNorm1d(embedding)

    def forward(self, images: Tensor) -> Tensor:
        x = self.global_depthwise(self.features(images))
        return F.normalize(self.norm(self.embed(x.flatten(1))))


def mobile_facenet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    module = settled(MobileFaceNet(), images)
    nn.init.normal_(module.norm.bias, 0.0, 0.3)  # else all faces point the same way
    return module, (images,)
