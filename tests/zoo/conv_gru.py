"""Convolutions over time, then a GRU (as in Cho et al., arXiv 1406.1078), read out at its last step."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.inputs import signals
from tests.zoo.networks import centred, kept_in_scale, settled


class ConvGRU(nn.Module):
    """(N, channels, length) -> (logits (N, classes), states (N, 2, hidden))."""

    def __init__(self, *, channels: int, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(channels, width, kernel_size=5, stride=2, padding=2),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, kernel_size=5, padding="same"),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.MaxPool1d(2),
        )
        self.gru = nn.GRU(width, hidden, num_layers=2, batch_first=True, dropout=0.1)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, states = self.gru(self.conv(x).permute(0, 2, 1))
        return self.fc(out[:, -1, :]), states.transpose(0, 1)


def conv_gru(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    waves = signals(count, 6, 96, level=1.0)
    module = settled(kept_in_scale(ConvGRU(channels=6, width=32, hidden=32, classes=6)), waves)
    return centred(module, module.fc, waves), (waves,)
