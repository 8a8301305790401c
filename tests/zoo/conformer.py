"""Conformer (Gulati et al., arXiv 2005.08100): half a feed-forward, attention, gated convolution, the other half."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import spectrograms
from tests.zoo.networks import settled


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.sequential = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Linear(4 * width, width),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.sequential(x)


class ConvolutionModule(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)
        self.sequential = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1),
            nn.GLU(dim=1),
            nn.Conv1d(width, width, kernel, padding=(kernel - 1) // 2, groups=width),
            nn.BatchNorm1d(width),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(x).transpose(1, 2)
        return self.sequential(x).transpose(1, 2)


class ConformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.ffn1 = FeedForward(width)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.conv_module = ConvolutionModule(width, kernel)
        self.ffn2 = FeedForward(width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ffn1(x) * 0.5
        y = self.self_attn_layer_norm(x)
        y, _ = self.self_attn(query=y, key=y, value=y, need_weights=False)
        x = x + y
        x = x + self.conv_module(x)
        x = x + self.ffn2(x) * 0.5
        return self.final_layer_norm(x)


class Conformer(nn.Module):
    """Mel bands over time (N, frames, bands) -> log probabilities (N, frames / 4, characters)."""

    def __init__(self, *, bands: int, width: int, heads: int, depth: int, characters: int) -> None:
        super().__init__()
        self.subsampling = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.input_projection = nn.Linear(16 * (bands // 4), width)
        self.blocks = nn.ModuleList(ConformerBlock(width, heads, kernel=15) for _ in range(depth))
        self.out = nn.Linear(width, characters)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.subsampling(mel.unsqueeze(1))
        batch, channels, frames, bands = x.size()
        x = x.permute(0, 2, 1, 3).contiguous().view(batch, frames, channels * bands)
        x = self.input_projection(x)
        for block in self.blocks:
            x = block(x)
        return F.log_softmax(self.out(x), dim=-1)


def conformer(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    mel = spectrograms(count, 64, 40)
    return settled(Conformer(bands=40, width=64, heads=4, depth=1, characters=30), mel), (mel,)
