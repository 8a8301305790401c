"""Dueling Q-network (Wang et al., arXiv 1511.06581): the value of a state, and what each action adds to it."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.networks import centred, kept_in_scale, pictures


class DuelingDQN(nn.Module):
    """Four frames (N, 4, 84, 84) in [0, 255] -> (values (N, actions), best action (N,) int64)."""

    def __init__(self, *, actions: int, hidden: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(4, 16, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.advantage = nn.Sequential(nn.Linear(32 * 49, hidden), nn.ReLU(), nn.Linear(hidden, actions))
        self.value = nn.Sequential(nn.Linear(32 * 49, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        x = self.features(frames / 255.0)
        advantage = self.advantage(x)
        values = self.value(x) + advantage - advantage.mean(dim=1, keepdim=True)
        return values, values.argmax(dim=1)


def dueling_dqn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    frames = np.clip(128 + 60 * pictures(count, 4, 84), 0, 255).round()
    module = kept_in_scale(DuelingDQN(actions=6))
    return centred(module, module.advantage[-1], frames), (frames,)
