"""CRNN (Shi et al., arXiv 1507.05717): text in pictures, read column by column by two bidirectional LSTMs."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.networks import centred, kept_in_scale, pictures, settled


class BidirectionalLSTM(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True)
        self.embedding = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        recurrent, _ = self.rnn(x)
        length, batch, width = recurrent.size()
        return self.embedding(recurrent.view(length * batch, width)).view(length, batch, -1)


class CRNN(nn.Module):
    """(N, 1, 32, W) -> log probabilities (N, W / 4 + 1, characters)."""

    def __init__(self, *, width: int, hidden: int, characters: int) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, kernel: int = 3) -> list[nn.Module]:
            padding = 0 if kernel == 2 else 1
            return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU(True)]

        self.cnn = nn.Sequential(
            *block(1, width),
            nn.MaxPool2d(2, 2),
            *block(width, 2 * width),
            nn.MaxPool2d(2, 2),
            *block(2 * width, 4 * width),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            *block(4 * width, 4 * width),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            *block(4 * width, 4 * width, 2),
        )
        self.rnn = nn.Sequential(
            BidirectionalLSTM(4 * width, hidden, hidden), BidirectionalLSTM(hidden, hidden, characters)
        )

    def forward(self, images: Tensor) -> Tensor:
        conv = self.cnn(images)
        assert conv.size(2) == 1, "the height must shrink to 1"
        sequence = conv.squeeze(2).permute(2, 0, 1)
        return F.log_softmax(self.rnn(sequence), dim=2).permute(1, 0, 2)


def crnn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = np.ascontiguousarray(pictures(count, 1, 64)[:, :, 16:48])
    module = settled(kept_in_scale(CRNN(width=12, hidden=32, characters=37)), images)
    return centred(module, module.rnn[1].embedding, images, spread=2.0), (images,)
