"""DLRM (Naumov et al., arXiv 1906.00091): categories embedded, every pair of features multiplied, clicks predicted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.inputs import features, tokens
from tests.zoo.networks import kept_in_scale


class DLRM(nn.Module):
    """Numbers (N, dense) and categories (N, sparse) int64 -> probability (N, 1)."""

    def __init__(self, *, dense: int, categories: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in categories)
        self.bottom = nn.Sequential(nn.Linear(dense, 64), nn.ReLU(), nn.Linear(64, width), nn.ReLU())
        count = len(categories) + 1
        pairs = [(i, j) for i in range(count) for j in range(i)]
        self.rows, self.columns = [i for i, _ in pairs], [j for _, j in pairs]
        self.top = nn.Sequential(
            nn.Linear(width + len(pairs), 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid()
        )

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        x = self.bottom(numbers)
        embedded = [embed(categories[:, index]) for index, embed in enumerate(self.embeddings)]
        batch, width = x.shape
        every = torch.cat([x, *embedded], dim=1).view(batch, -1, width)
        products = torch.bmm(every, torch.transpose(every, 1, 2))
        pairs = products[:, self.rows, self.columns]
        return self.top(torch.cat([x, pairs], dim=1))


def dlrm(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = DLRM(dense=13, categories=(40, 40, 40, 40, 40), width=16)
    for embedding in module.embeddings:
        nn.init.normal_(embedding.weight, std=0.5)
    return kept_in_scale(module), (features(count, 13), tokens(count, 5, 40))
