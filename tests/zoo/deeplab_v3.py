"""DeepLabV3 (Chen et al., arXiv 1706.05587): dilated convolutions side by side, a pooled branch, upsampled."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        hidden = 4 * inputs
        self.layers = nn.Sequential(
            conv_norm(inputs, hidden, activation=nn.ReLU6),
            conv_norm(hidden, hidden, 3, stride=stride, groups=hidden, dilation=dilation, activation=nn.ReLU6),
            conv_norm(hidden, outputs, activation=None),
        )
        self.is_residual = stride == 1 and inputs == outputs
        self.last_norm = [self.layers[-1][1]] if self.is_residual else []

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class ASPPPooling(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = conv_norm(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        return F.interpolate(self.conv(self.pool(x)), size=size, mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        branches: list[nn.Module] = [conv_norm(inputs, outputs)]
        branches += [conv_norm(inputs, outputs, 3, dilation=rate) for rate in rates]
        self.convs = nn.ModuleList([*branches, ASPPPooling(inputs, outputs)])
        self.project = nn.Sequential(conv_norm(len(self.convs) * outputs, outputs), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([conv(x) for conv in self.convs], dim=1))


class DeepLabV3(nn.Module):
    """(N, 3, H, W) -> {"out": (N, classes, H, W)}."""

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            conv_norm(3, 16, 3, stride=2, activation=nn.ReLU6),
            InvertedResidual(16, 24, stride=2),
            InvertedResidual(24, 24),
            InvertedResidual(24, 32, stride=2),
            InvertedResidual(32, 32),
            InvertedResidual(32, 48, dilation=2),
            InvertedResidual(48, 48, dilation=2),
        )
        self.aspp = ASPP(48, 32, rates=(2, 4, 6))
        self.classifier = nn.Sequential(conv_norm(32, 32, 3), nn.Conv2d(32, classes, 1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.classifier(self.aspp(self.backbone(images)))
        return {"out": F.interpolate(x, size=images.shape[-2:], mode="bilinear", align_corners=False)}


def deeplab_v3(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(DeepLabV3(classes=8), images), (images,)
