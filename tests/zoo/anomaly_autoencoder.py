"""The anomaly detector of MLPerf Tiny (Banbury et al., arXiv 2106.07597): linear layers to 8 and back."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.inputs import signals
from tests.zoo.networks import settled


class AnomalyAutoencoder(nn.Module):
    """Five frames of 128 mel bands, (N, 640) -> the same frames as the network knows them."""

    def __init__(self, *, inputs: int = 640, hidden: int = 128, code: int = 8) -> None:
        super().__init__()
        widths = [inputs, hidden, hidden, hidden, hidden, code, hidden, hidden, hidden, hidden]
        layers: list[nn.Module] = []
        for index in range(len(widths) - 1):
            width = widths[index + 1]
            layers += [nn.Linear(widths[index], width), nn.BatchNorm1d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, inputs))

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(frames)


def anomaly_autoencoder(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    frames = signals(count, 5, 128).reshape(count, 640)
    return settled(AnomalyAutoencoder(), frames), (frames,)
