"""SSD (Liu et al., arXiv 1512.02325): boxes and classes predicted at every scale, the first one normalised."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


class L2Norm(nn.Module):
    """Each pixel's channels brought to one length, and scaled."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.eps = 1e-10
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.pow(2).sum(dim=1, keepdim=True).sqrt() + self.eps
        x = torch.div(x, norm)
        return self.weight.unsqueeze(0).unsqueeze(2).unsqueeze(3).expand_as(x) * x


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv_norm(inputs, inputs, 3, stride=stride, groups=inputs), conv_norm(inputs, outputs))


class SSD(nn.Module):
    """(N, 3, H, W) -> (boxes (N, anchors, 4), class probabilities (N, anchors, classes))."""

    def __init__(self, *, anchors: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.stages = nn.ModuleList(
            [
                nn.Sequential(conv_norm(3, 16, 3, stride=2), separable(16, 32, 2), separable(32, 64, 2)),
                nn.Sequential(separable(64, 96, 2), separable(96, 96)),
                nn.Sequential(conv_norm(96, 32), conv_norm(32, 64, 3, stride=2)),
                nn.Sequential(conv_norm(64, 32), conv_norm(32, 64, 3, stride=2)),
            ]
        )
        self.norm = L2Norm(64, 8.0)
        widths = (64, 96, 64, 64)
        self.loc = nn.ModuleList(nn.Conv2d(w, a * 4, 3, padding=1) for w, a in zip(widths, anchors, strict=True))
        self.conf = nn.ModuleList(nn.Conv2d(w, a * classes, 3, padding=1) for w, a in zip(widths, anchors, strict=True))
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        sources, x = [], images
        for index, stage in enumerate(self.stages):
            x = stage(x)
            sources.append(x if index else self.norm(x))
        loc = [head(x).permute(0, 2, 3, 1).contiguous() for head, x in zip(self.loc, sources, strict=True)]
        conf = [head(x).permute(0, 2, 3, 1).contiguous() for head, x in zip(self.conf, sources, strict=True)]
        boxes = torch.cat([o.view(o.size(0), -1) for o in loc], 1)
        scores = torch.cat([o.view(o.size(0), -1) for o in conf], 1)
        scores = self.softmax(scores.view(scores.size(0), -1, self.classes))
        return boxes.view(boxes.size(0), -1, 4), scores


def ssd(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 96)
    return settled(SSD(anchors=(4, 6, 6, 4), classes=6), images), (images,)
