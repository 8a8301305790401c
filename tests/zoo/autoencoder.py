"""Convolutional autoencoder (after Masci et al., 2011): strided down to a code, transposed convolutions back up."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.networks import kept_in_scale, pictures


class Autoencoder(nn.Module):
    """(N, 3, 32, 32) -> {"reconstruction": (N, 3, 32, 32), "code": (N, code)}."""

    def __init__(self, *, width: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.ELU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ELU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(4 * width * 16, code),
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, 4 * width * 16),
            nn.ELU(),
            nn.Unflatten(1, (4 * width, 4, 4)),
            nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1),
            nn.ELU(),
            nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1),
            nn.ELU(),
            nn.ConvTranspose2d(width, 3, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        code = self.encoder(images)
        return {"reconstruction": self.decoder(code), "code": code}


def autoencoder(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return kept_in_scale(Autoencoder(width=12, code=32), slope=0.5), (pictures(count, 3, 32),)
