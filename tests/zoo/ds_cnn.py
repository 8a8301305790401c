"""DS-CNN for keywords (Zhang et al., arXiv 1711.07128): a wide first kernel over time and frequency, then separable."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.inputs import spectrograms
from tests.zoo.layers import conv_norm
from tests.zoo.networks import centred, settled


class DSCNN(nn.Module):
    """MFCCs (N, 1, 49, 10) -> (N, keywords)."""

    def __init__(self, *, width: int = 64, blocks: int = 4, keywords: int = 12) -> None:
        super().__init__()
        # 49 x 10 to 25 x 5, one row of padding more below than above
        self.pad = nn.ZeroPad2d((1, 1, 4, 5))
        self.first = nn.Sequential(nn.Conv2d(1, width, (10, 4), (2, 2), bias=False), nn.BatchNorm2d(width), nn.ReLU())
        layers = []
        for _ in range(blocks):
            layers += [conv_norm(width, width, 3, groups=width), conv_norm(width, width)]
        self.separable = nn.Sequential(nn.Dropout(0.2), *layers, nn.Dropout(0.4))
        self.pool = nn.AvgPool2d((25, 5))
        self.classifier = nn.Linear(width, keywords)

    def forward(self, mfcc: Tensor) -> Tensor:
        x = self.pool(self.separable(self.first(self.pad(mfcc))))
        return torch.softmax(self.classifier(x.squeeze(3).squeeze(2)), dim=1)


def ds_cnn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    mfcc = spectrograms(count, 49, 10)[:, None]
    module = settled(DSCNN(), mfcc, offset=0.5)
    return centred(module, module.classifier, mfcc), (mfcc,)
