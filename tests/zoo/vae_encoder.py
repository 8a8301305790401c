"""The encoder of a variational autoencoder (Kingma and Welling, arXiv 1312.6114): mean and log variance of a code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.networks import pictures, settled


class VAEEncoder(nn.Module):
    """(N, 3, 32, 32) -> (mu (N, code), logvar (N, code)). Only training samples from them."""

    def __init__(self, *, widths: tuple[int, ...], code: int) -> None:
        super().__init__()
        blocks, channels = [], 3
        for width in widths:
            conv = nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1)
            blocks.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU()))
            channels = width
        self.encoder = nn.Sequential(*blocks)
        self.fc_mu = nn.Linear(4 * channels, code)
        self.fc_var = nn.Linear(4 * channels, code)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.flatten(self.encoder(images), start_dim=1)
        mu, logvar = self.fc_mu(x), self.fc_var(x)
        if self.training:
            mu = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return mu, logvar


def vae_encoder(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 32)
    return settled(VAEEncoder(widths=(16, 32, 64, 96), code=16), images), (images,)
