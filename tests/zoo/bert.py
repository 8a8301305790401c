"""BERT (Devlin et al., arXiv 1810.04805): three embeddings added, padding masked in every attention, a pooled word."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.inputs import lengths_mask, tokens


class Embeddings(nn.Module):
    position_ids: Tensor

    def __init__(self, vocabulary: int, positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(positions).expand((1, -1)), persistent=False)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        positions = self.position_embeddings(self.position_ids[:, : input_ids.size(1)])
        words = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.norm(words + positions)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def transpose_for_scores(self, x: Tensor) -> Tensor:
        return x.view((*x.size()[:-1], self.heads, self.head_width)).permute(0, 2, 1, 3)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self.transpose_for_scores(f(hidden)) for f in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.head_width) + mask
        context = torch.matmul(nn.functional.softmax(scores, dim=-1), v).permute(0, 2, 1, 3).contiguous()
        context = context.view((*context.size()[:-2], self.heads * self.head_width))
        return self.norm(self.dense(context) + hidden)


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.intermediate = nn.Linear(width, 4 * width)
        self.output = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        attended = self.attention(hidden, mask)
        return self.norm(self.output(nn.functional.gelu(self.intermediate(attended))) + attended)


class Bert(nn.Module):
    """Word ids, attention mask and token types, each (N, length) int64 -> (hidden (N, length, width), pooled)."""

    def __init__(self, *, vocabulary: int, positions: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(vocabulary, positions, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.pooler = nn.Sequential(nn.Linear(width, width), nn.Tanh())

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        mask = attention_mask[:, None, None, :].to(dtype=torch.float32)
        mask = (1.0 - mask) * torch.finfo(torch.float32).min
        hidden = self.embeddings(input_ids, token_type_ids)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden, self.pooler(hidden[:, 0])


def bert(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    length = 32
    module = Bert(vocabulary=500, positions=64, width=64, heads=4, depth=2)
    mask = lengths_mask(count, length)
    types = np.broadcast_to((np.arange(length) >= length // 2).astype(np.int64), (count, length)).copy()
    return module.eval(), (tokens(count, length, 500) * mask, mask, types)
