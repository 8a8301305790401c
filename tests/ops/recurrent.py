"""What the tests of recurrent layers have in common."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

STEPS, CHANNELS, HIDDEN = 4, 3, 5

KINDS: dict[str, Callable[..., nn.Module]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn tanh": nn.RNN,
    "rnn relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}


class Only(nn.Module):
    """Some of the results of a layer: 0 the sequence, 1 the last hidden state, 2 the last cell state."""

    def __init__(self, layer: nn.Module, *kept: int) -> None:
        super().__init__()
        self.layer, self.kept = layer, kept

    def forward(self, x, *states):
        given = states if len(states) == 2 else (states[0] if states else None)
        sequence, last = self.layer(x, given)
        results = (sequence, *(last if isinstance(last, tuple) else (last,)))
        return tuple(results[at] for at in self.kept)


class Between(nn.Module):
    """The hidden states of a layer between two linear ones, which have integer kernels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(CHANNELS, layer.input_size)
        self.layer = layer
        self.last = nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), 3)

    def forward(self, x):
        return self.last(self.layer(self.first(x))[0])


def layer(kind: str, channels: int = CHANNELS, hidden: int = HIDDEN, **options) -> nn.Module:
    """A layer of random weights, the same at every call; batch first."""
    torch.manual_seed(3)
    return KINDS[kind](channels, hidden, **{"batch_first": True, **options}).eval()


def between(kind: str, **options) -> nn.Module:
    made = layer(kind, **options)
    torch.manual_seed(4)
    return Between(made).eval()
