"""wav2vec 2.0's encoder (Baevski et al., arXiv 2006.11477): raw sound to frames by convolutions, then a transformer."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import signals
from tests.zoo.networks import kept_in_scale


class ConvLayer(nn.Module):
    """The first layer is normalised along time by groups of one channel, the others over channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=False)
        self.group_norm = nn.GroupNorm(outputs, outputs) if first else None
        self.layer_norm = None if first else nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.group_norm is not None:
            x = self.group_norm(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x.transpose(-2, -1)).transpose(-2, -1)
        return F.gelu(x)


class PositionalConv(nn.Module):
    """A grouped convolution of even width tells frames where they are; its last output is one too many."""

    def __init__(self, width: int, kernel: int = 16, groups: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.transpose(1, 2))[:, :, :-1]
        return F.gelu(x).transpose(1, 2)


class Wav2Vec(nn.Module):
    """(N, samples) -> (N, frames, width)."""

    def __init__(self, *, width: int, heads: int, depth: int) -> None:
        super().__init__()
        shapes = ((10, 5), (3, 2), (3, 2), (2, 2))
        self.feature_extractor = nn.Sequential(
            *[ConvLayer(width if i else 1, width, k, s, first=i == 0) for i, (k, s) in enumerate(shapes)]
        )
        self.projection = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.Dropout(0.1))
        self.positions = PositionalConv(width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, activation="gelu", batch_first=True)
            for _ in range(depth)
        )

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.feature_extractor(waveform.unsqueeze(1)).transpose(1, 2)
        x = self.projection(x)
        x = self.norm(x + self.positions(x))
        for layer in self.layers:
            x = layer(x)
        return x


def wav2vec(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = Wav2Vec(width=64, heads=4, depth=1)
    kept_in_scale(module.feature_extractor)
    return module.eval(), (signals(count, 1, 1600)[:, 0],)
