"""DCGAN's generator (Radford et al., arXiv 1511.06434): noise to a picture by transposed convolutions."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.inputs import features
from tests.zoo.networks import settled


class Generator(nn.Module):
    """(N, noise) -> (N, 3, 32, 32) in [-1, 1]."""

    def __init__(self, *, noise: int, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(noise, 4 * width, 4, 1, 0, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(True),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(True),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
            nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, noise: Tensor) -> Tensor:
        return self.main(noise[:, :, None, None])


def dcgan(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    noise = features(count, 64)
    return settled(Generator(noise=64, width=24), noise), (noise,)
