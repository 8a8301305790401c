"""TextCNN (Kim, arXiv 1408.5882): kernels over three, four and five words, the strongest answer of each."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import tokens
from tests.zoo.networks import kept_in_scale


class TextCNN(nn.Module):
    """(N, length) int64 -> (N, classes)."""

    def __init__(self, *, vocabulary: int, width: int, kernels: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.convs = nn.ModuleList(nn.Conv2d(1, kernels, (size, width)) for size in (3, 4, 5))
        self.dropout = nn.Dropout(0.5)
        self.fc1 = nn.Linear(3 * kernels, classes)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words).unsqueeze(1)
        found = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        found = [F.max_pool1d(i, i.size(2)).squeeze(2) for i in found]
        return self.fc1(self.dropout(torch.cat(found, 1)))


def text_cnn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = TextCNN(vocabulary=500, width=48, kernels=24, classes=4)
    return kept_in_scale(module), (tokens(count, 32, 500),)
