"""x-vectors (Snyder et al., 2018; attentive pooling of arXiv 1803.10963): mean and deviation over time tell a voice."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import spectrograms
from tests.zoo.networks import settled


class TDNN(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(x)))


class AttentiveStatistics(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.Tanh(), nn.Conv1d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.attention(x), dim=2)
        mean = torch.sum(weights * x, dim=2)
        residuals = torch.sum(weights * x**2, dim=2) - mean**2
        return torch.cat([mean, torch.sqrt(residuals.clamp(min=1e-4))], dim=1)


class XVector(nn.Module):
    """(N, bands, frames) -> embedding (N, width) of length 1."""

    def __init__(self, *, bands: int, channels: int, width: int) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            TDNN(bands, channels, 5, 1), TDNN(channels, channels, 3, 2), TDNN(channels, channels, 3, 3)
        )
        self.pool = AttentiveStatistics(channels, channels // 2)
        self.embedding = nn.Linear(2 * channels, width)

    def forward(self, bands: Tensor) -> Tensor:
        bands = bands - bands.mean(dim=-1, keepdim=True)
        return F.normalize(self.embedding(self.pool(self.frames(bands))), p=2.0, dim=-1)


def x_vector(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    bands = spectrograms(count, 24, 80)
    return settled(XVector(bands=24, channels=48, width=32), bands), (bands,)
