"""RetinaNet (Lin et al., arXiv 1708.02002) on a feature pyramid (arXiv 1612.03144): one head for all levels."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import kept_in_scale, pictures, settled


class FeaturePyramid(nn.Module):
    """Coarse levels are upsampled to the size of the finer and added."""

    def __init__(self, inputs: list[int], outputs: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Conv2d(channels, outputs, 1) for channels in inputs)
        self.layer_blocks = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in inputs)
        self.p6 = nn.Conv2d(outputs, outputs, 3, stride=2, padding=1)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        inner = self.inner_blocks[-1](levels[-1])
        results = [self.layer_blocks[-1](inner)]
        for index in range(len(levels) - 2, -1, -1):
            lateral = self.inner_blocks[index](levels[index])
            inner = lateral + F.interpolate(inner, size=lateral.shape[-2:], mode="nearest")
            results.insert(0, self.layer_blocks[index](inner))
        return [*results, self.p6(F.relu(results[-1]))]


class RetinaHead(nn.Module):
    def __init__(self, channels: int, anchors: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        self.predict = nn.Conv2d(channels, anchors * values, 3, padding=1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        every = []
        for level in levels:
            x = self.predict(self.conv(level))
            batch, _, height, width = x.shape
            x = x.view(batch, -1, self.values, height, width).permute(0, 3, 4, 1, 2)
            every.append(x.reshape(batch, -1, self.values))
        return torch.cat(every, dim=1)


class RetinaNet(nn.Module):
    """(N, 3, H, W) -> {"cls_logits": (N, anchors, classes), "bbox_regression": (N, anchors, 4)}."""

    def __init__(self, *, width: int, channels: int, anchors: int, classes: int) -> None:
        super().__init__()
        widths = [2 * width, 4 * width, 8 * width]
        self.stem = conv_norm(3, width, 3, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_norm(w // 2, w, 3, stride=2), conv_norm(w, w, 3)) for w in widths
        )
        self.fpn = FeaturePyramid(widths, channels)
        self.classification_head = RetinaHead(channels, anchors, classes)
        self.regression_head = RetinaHead(channels, anchors, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        levels, x = [], self.stem(images)
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        pyramid = self.fpn(levels)
        return {"cls_logits": self.classification_head(pyramid), "bbox_regression": self.regression_head(pyramid)}


def fpn_detector(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    module = kept_in_scale(RetinaNet(width=12, channels=32, anchors=3, classes=5))
    nn.init.constant_(module.classification_head.predict.bias, -math.log((1 - 0.01) / 0.01))
    return settled(module, images), (images,)
