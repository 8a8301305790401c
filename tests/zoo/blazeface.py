"""BlazeFace (Bazarevsky et al., arXiv 1907.05047): padded 5x5 blocks, skips widened by zero channels, two scales."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.networks import kept_in_scale, pictures


class BlazeBlock(nn.Module):
    """A stride of two pads below and right only, as TensorFlow does."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.channel_pad = stride, outputs - inputs
        padding = 0 if stride == 2 else 2
        self.convs = nn.Sequential(
            nn.Conv2d(inputs, inputs, 5, stride, padding, groups=inputs), nn.Conv2d(inputs, outputs, 1)
        )
        self.last_layer = [self.convs[1]]
        self.max_pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        if self.stride == 2:
            h = F.pad(x, (1, 2, 1, 2), "constant", 0)
            x = self.max_pool(x)
        if self.channel_pad > 0:
            x = F.pad(x, (0, 0, 0, 0, 0, self.channel_pad), "constant", 0)
        return self.act(self.convs(h) + x)


class BlazeFace(nn.Module):
    """(N, 3, 64, 64) -> [boxes and six keypoints (N, 384, 16), scores (N, 384, 1)]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 5, stride=2, padding=0), nn.ReLU(inplace=True))
        self.backbone1 = nn.Sequential(
            BlazeBlock(24, 24),
            BlazeBlock(24, 28),
            BlazeBlock(28, 32, stride=2),
            BlazeBlock(32, 36),
            BlazeBlock(36, 48, stride=2),
            BlazeBlock(48, 64),
        )
        self.backbone2 = nn.Sequential(BlazeBlock(64, 96, stride=2), BlazeBlock(96, 96))
        self.classifier_8 = nn.Conv2d(64, 2, 1)
        self.classifier_16 = nn.Conv2d(96, 6, 1)
        self.regressor_8 = nn.Conv2d(64, 32, 1)
        self.regressor_16 = nn.Conv2d(96, 96, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.backbone1(self.stem(F.pad(images, (1, 2, 1, 2), "constant", 0)))
        h = self.backbone2(x)
        batch = images.shape[0]
        c1 = self.classifier_8(x).permute(0, 2, 3, 1).reshape(batch, -1, 1)
        c2 = self.classifier_16(h).permute(0, 2, 3, 1).reshape(batch, -1, 1)
        r1 = self.regressor_8(x).permute(0, 2, 3, 1).reshape(batch, -1, 16)
        r2 = self.regressor_16(h).permute(0, 2, 3, 1).reshape(batch, -1, 16)
        return [torch.cat((r1, r2), dim=1), torch.cat((c1, c2), dim=1).clamp(-100, 100).sigmoid()]


def blazeface(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return kept_in_scale(BlazeFace(), last=0.3), (np.clip(pictures(count, 3, 64), -1, 1),)
