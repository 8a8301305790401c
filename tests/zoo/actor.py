"""The actor of SAC (Haarnoja et al., arXiv 1801.01290): an action between its bounds, and how unsure it is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.inputs import features
from tests.zoo.networks import kept_in_scale


class Actor(nn.Module):
    """(N, observations) -> {"action": (N, actions), "std": (N, actions)}."""

    low: Tensor
    high: Tensor

    def __init__(self, *, observations: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(observations, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )
        self.mean = nn.Linear(hidden, actions)
        self.log_std = nn.Linear(hidden, actions)
        self.register_buffer("low", -torch.ones(actions))
        self.register_buffer("high", torch.linspace(1.0, 2.0, actions))

    def forward(self, observation: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.net(observation))
        std = torch.clamp(self.log_std(x), min=-5, max=2).exp()
        action = self.low + (torch.tanh(self.mean(x)) + 1) * 0.5 * (self.high - self.low)
        return {"action": action, "std": std}


def actor(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = kept_in_scale(Actor(observations=17, actions=6, hidden=64))
    module.log_std.weight.data.mul_(0.5)
    nn.init.constant_(module.log_std.bias, -1.0)
    return module, (features(count, 17),)
