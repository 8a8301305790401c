"""The transformer's decoder (Vaswani et al., arXiv 1706.03762): a causal mask on itself, attention to a memory."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.inputs import features, tokens


class PositionalEncoding(nn.Module):
    pe: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        position = torch.arange(length).unsqueeze(1)
        frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(1, length, width)
        table[0, :, 0::2] = torch.sin(position * frequency)
        table[0, :, 1::2] = torch.cos(position * frequency)
        self.register_buffer("pe", table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.size(1)]


class Decoder(nn.Module):
    """Words so far (N, length) int64 and encoder states (N, frames, width) -> logits (N, length, vocabulary)."""

    def __init__(self, *, vocabulary: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.positions = PositionalEncoding(width, 128)
        layer = nn.TransformerDecoderLayer(width, heads, dim_feedforward=2 * width, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, depth)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, words: Tensor, memory: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(words.size(1))
        x = self.positions(self.embed(words) * math.sqrt(self.width))
        return self.out(self.decoder(x, memory, tgt_mask=causal, tgt_is_causal=True))


def decoder(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = Decoder(vocabulary=120, width=64, heads=4, depth=1)
    return module.eval(), (tokens(count, 16, 120), features(count, 24, 64))
