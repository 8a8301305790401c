"""MLP-Mixer (Tolstikhin et al., arXiv 2105.01601): linear layers along the patches, then along the channels."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.networks import pictures


def mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class MixerBlock(nn.Module):
    def __init__(self, patches: int, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.token_mixing = mlp(patches, 2 * patches)
        self.norm2 = nn.LayerNorm(channels)
        self.channel_mixing = mlp(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x).transpose(1, 2)
        x = x + self.token_mixing(y).transpose(1, 2)
        return x + self.channel_mixing(self.norm2(x))


class MlpMixer(nn.Module):
    """(N, 3, size, size) -> (N, classes)."""

    def __init__(self, *, size: int, patch: int, channels: int, depth: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, patch, stride=patch)
        self.blocks = nn.Sequential(*[MixerBlock((size // patch) ** 2, channels) for _ in range(depth)])
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


def mlp_mixer(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = MlpMixer(size=64, patch=8, channels=96, depth=4, classes=100)
    return module.eval(), (pictures(count, 3, 64),)
