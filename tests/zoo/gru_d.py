"""GRU-D (Che et al., arXiv 1606.01865): series with holes; what was last seen decays towards the mean with time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.inputs import features, signals
from tests.zoo.networks import centred, kept_in_scale


class GRUD(nn.Module):
    """Values, mask (bool) and hours since last seen, each (N, length, channels) -> probability (N, 1)."""

    means: Tensor

    def __init__(self, *, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.register_buffer("means", 0.2 * torch.randn(channels))
        self.decay_x = nn.Parameter(0.5 * torch.rand(channels))
        self.decay_h = nn.Linear(channels, hidden)
        self.cell = nn.GRUCell(2 * channels, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, values: Tensor, mask: Tensor, elapsed: Tensor) -> Tensor:
        batch, length, _ = values.shape
        state = values.new_zeros(batch, self.hidden)
        last = self.means.expand(batch, -1)
        for step in range(length):
            x, seen, delta = values[:, step], mask[:, step], elapsed[:, step]
            last = torch.where(seen, x, last)
            gamma_x = torch.exp(-torch.relu(self.decay_x * delta))
            filled = torch.where(seen, x, gamma_x * last + (1 - gamma_x) * self.means)
            state = state * torch.exp(-torch.relu(self.decay_h(delta)))
            state = self.cell(torch.cat([filled, seen.float()], dim=-1), state)
        return torch.sigmoid(self.out(state))


def gru_d(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    length, channels = 10, 8
    mask = features(count, length, channels, seed=1) > 0.3
    elapsed = np.zeros((count, length, channels), np.float32)
    for step in range(1, length):
        elapsed[:, step] = np.where(mask[:, step - 1], 1.0, elapsed[:, step - 1] + 1.0)
    values = signals(count, channels, length, level=1.0).transpose(0, 2, 1) * mask
    module, inputs = kept_in_scale(GRUD(channels=channels, hidden=32)), (values.astype(np.float32), mask, elapsed)
    return centred(module, module.out, *inputs), inputs
