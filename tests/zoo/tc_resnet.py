"""TC-ResNet8 (Choi et al., arXiv 1904.03814): keywords by convolutions over time, mel bands as channels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import spectrograms
from tests.zoo.networks import settled


class TemporalBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 9, stride, padding=4, bias=False)
        self.bn1 = nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, 9, padding=4, bias=False)
        self.bn2 = nn.BatchNorm1d(outputs)
        self.last_norm = [self.bn2]
        self.shortcut = nn.Sequential(
            nn.Conv1d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class TCResNet(nn.Module):
    """(N, bands, frames) -> (N, keywords)."""

    def __init__(self, *, bands: int, widths: tuple[int, ...] = (16, 24, 32, 48), keywords: int = 12) -> None:
        super().__init__()
        self.conv = nn.Conv1d(bands, widths[0], 3, padding=1, bias=False)
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*[TemporalBlock(inputs, outputs, 2) for inputs, outputs in pairs])
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.fc = nn.Conv1d(widths[-1], keywords, 1)

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.conv(spectrogram)))
        return self.fc(x).squeeze(-1)


def tc_resnet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    bands = spectrograms(count, 40, 98)
    return settled(TCResNet(bands=40), bands), (bands,)
