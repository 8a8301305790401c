"""LSTM on accelerometers (Hochreiter and Schmidhuber, 1997; as used by Hammerla et al., arXiv 1604.08880)."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.inputs import signals
from tests.zoo.networks import centred, kept_in_scale


class LSTMClassifier(nn.Module):
    """(N, length, channels) -> (N, classes), from the last layer's last hidden state."""

    def __init__(self, *, channels: int, hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, layers, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(x)
        return self.fc(hidden[-1])


def lstm(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = LSTMClassifier(channels=6, hidden=48, layers=2, classes=6)
    waves = np.ascontiguousarray(signals(count, 6, 48, level=1.0).transpose(0, 2, 1))
    return centred(kept_in_scale(module), module.fc, waves), (waves,)
