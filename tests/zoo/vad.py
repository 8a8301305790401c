"""A streaming voice detector (after Silero VAD; LSTM of Hochreiter and Schmidhuber, 1997): the state in and out."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import features, signals
from tests.zoo.networks import centred, kept_in_scale


class VoiceDetector(nn.Module):
    """A chunk (N, 256) and the state (N, 2, hidden) -> probability (N, 1) and the next state."""

    basis: Tensor

    def __init__(self, *, hidden: int, window: int = 64, hop: int = 32) -> None:
        super().__init__()
        self.hop, self.bins = hop, window // 2 + 1
        # a short Fourier transform as a convolution: cosines, then sines, under a Hann window
        time = torch.arange(window) * (2 * torch.pi / window)
        angles = torch.arange(self.bins).unsqueeze(1) * time
        basis = torch.cat([torch.cos(angles), -torch.sin(angles)]) * torch.hann_window(window)
        self.register_buffer("basis", basis.unsqueeze(1))
        self.reflect = window // 2
        self.encoder = nn.Sequential(
            nn.Conv1d(self.bins, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 3, stride=4, padding=1),
            nn.ReLU(),
        )
        self.rnn = nn.LSTMCell(hidden, hidden)
        self.decoder = nn.Sequential(nn.Dropout(0.1), nn.ReLU(), nn.Conv1d(hidden, 1, 1), nn.Sigmoid())

    def spectrum(self, x: Tensor) -> Tensor:
        x = F.pad(x.unsqueeze(1), (0, self.reflect), mode="reflect")
        parts = F.conv1d(x, self.basis, stride=self.hop)
        real, imaginary = parts[:, : self.bins], parts[:, self.bins :]
        return torch.sqrt(real**2 + imaginary**2)

    def forward(self, chunk: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = self.encoder(self.spectrum(chunk)).mean(-1)
        h, c = self.rnn(x, (state[:, 0], state[:, 1]))
        probability = self.decoder(h.unsqueeze(-1)).squeeze(2)
        return probability, torch.stack([h, c], dim=1)


def vad(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = VoiceDetector(hidden=48)
    kept_in_scale(module)
    module.encoder[0].weight.data.mul_(0.2)  # spectra are large
    inputs = (0.3 * signals(count, 1, 256)[:, 0], np.tanh(0.5 * features(count, 2, 48)))
    return centred(module, module.decoder[2], *inputs, spread=2.0), inputs
