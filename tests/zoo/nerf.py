"""NeRF's network (Mildenhall et al., arXiv 2003.08934): places as sines and cosines, density and colour out."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import features
from tests.zoo.networks import kept_in_scale


class Encoding(nn.Module):
    """x, then sin and cos of 2^k pi x."""

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.bands = [2.0**k * torch.pi for k in range(frequencies)]
        self.width = 1 + 2 * frequencies

    def forward(self, x: Tensor) -> Tensor:
        every = [x]
        for band in self.bands:
            every += [torch.sin(x * band), torch.cos(x * band)]
        return torch.cat(every, dim=-1)


class NeRF(nn.Module):
    """Points (N, samples, 3) in [-1, 1] and a direction (N, 3) -> colour (N, samples, 3), density (N, samples)."""

    def __init__(self, *, depth: int, width: int) -> None:
        super().__init__()
        self.places, self.directions = Encoding(4), Encoding(2)
        inputs = 3 * self.places.width
        self.skip = depth // 2
        widths = [inputs if i == 0 else width + inputs if i == self.skip else width for i in range(depth)]
        self.layers = nn.ModuleList(nn.Linear(w, width) for w in widths)
        self.density = nn.Linear(width, 1)
        self.feature = nn.Linear(width, width)
        self.view = nn.Linear(width + 3 * self.directions.width, width // 2)
        self.colour = nn.Linear(width // 2, 3)

    def forward(self, points: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        encoded = x = self.places(points)
        for index, layer in enumerate(self.layers):
            if index == self.skip:
                x = torch.cat([encoded, x], -1)
            x = F.relu(layer(x))
        density = F.softplus(self.density(x)).squeeze(-1)
        direction = F.normalize(direction, dim=-1)
        view = self.directions(direction).unsqueeze(1).expand(-1, points.shape[1], -1)
        x = F.relu(self.view(torch.cat([self.feature(x), view], -1)))
        return torch.sigmoid(self.colour(x)), density


def nerf(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    points = np.tanh(features(count, 32, 3))
    return kept_in_scale(NeRF(depth=4, width=64)), (points, features(count, 3, seed=1))
