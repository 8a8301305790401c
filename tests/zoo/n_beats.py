"""N-BEATS (Oreshkin et al., arXiv 1905.10437): each block explains a part of the past, which is taken away from it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import signals


class Block(nn.Module):
    """`basis` (coefficients, backcast + forecast) is learned where None is given."""

    basis: Tensor | None

    def __init__(self, past: int, future: int, width: int, basis: Tensor | None = None) -> None:
        super().__init__()
        self.past = past
        self.fc = nn.Sequential(*[nn.Linear(width if i else past, width) for i in range(3)])
        self.register_buffer("basis", basis)
        self.theta = nn.Linear(width, past + future if basis is None else len(basis))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.fc:
            x = F.relu(layer(x))
        theta = self.theta(x)
        both = theta if self.basis is None else torch.einsum("bp,pt->bt", theta, self.basis)
        return both[:, : self.past], both[:, self.past :]


class NBeats(nn.Module):
    """(N, past) -> (N, future)."""

    def __init__(self, *, past: int, future: int, width: int) -> None:
        super().__init__()
        time = torch.arange(-past, future) / past
        trend = torch.stack([time**power for power in range(3)])
        waves = torch.stack([f(2 * torch.pi * k * time) for k in (1, 2, 3, 4) for f in (torch.cos, torch.sin)])
        bases = [trend, trend, waves, waves, None, None]
        self.blocks = nn.ModuleList(Block(past, future, width, basis) for basis in bases)

    def forward(self, series: Tensor) -> Tensor:
        # the last value is the level that everything is relative to
        level = series[:, -1:]
        residual, forecast = series - level, level
        for block in self.blocks:
            backcast, part = block(residual)
            residual = residual - backcast
            forecast = forecast + part
        return forecast


def n_beats(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return NBeats(past=60, future=12, width=64).eval(), (signals(count, 1, 60)[:, 0],)
