"""A plain recurrent network with ReLU (Le et al., arXiv 1504.00941), reading a sequence with time first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.inputs import signals


class IRNN(nn.Module):
    """(N, length, channels) -> (N, length, outputs)."""

    def __init__(self, *, channels: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.rnn = nn.RNN(channels, hidden, nonlinearity="relu")
        # the identity, somewhat shrunk: what is seen fades but is kept
        self.rnn.weight_hh_l0.data.copy_(0.8 * torch.eye(hidden) + 0.02 * torch.randn(hidden, hidden))
        self.decoder = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(1, x.size(0), self.hidden, device=x.device)
        out, _ = self.rnn(x.transpose(0, 1), start)
        return self.decoder(out).transpose(0, 1)


def rnn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = IRNN(channels=4, hidden=32, outputs=5)
    return module.eval(), (np.ascontiguousarray(signals(count, 4, 32, level=1.0).transpose(0, 2, 1)),)
