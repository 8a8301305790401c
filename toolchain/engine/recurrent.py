"""Recurrent layers by torch's own: one layer and direction, sequences `(N, T, C)`."""

from __future__ import annotations

import torch
from torch import Tensor

from toolchain.graph import Node

_ONE_LAYER = (True, 1, 0.0, False, False, True)
"""With biases, one layer, no dropout, not in training, one direction, batch first."""


def lstm(node: Node, x: Tensor, *parameters: Tensor) -> Tensor:
    """Hidden states `(N, T, H)` of `x (N, T, C)`, or the cell state `(N, H)` after the last step."""
    weights, (hidden, cell) = _parameters(x, parameters, 2)
    sequence, _, last = torch.lstm(_in_order(node, x), (hidden, cell), weights, *_ONE_LAYER)
    return last[0] if node["gives"] == "cell" else _in_order(node, sequence)


def gru(node: Node, x: Tensor, *parameters: Tensor) -> Tensor:
    """Hidden states `(N, T, H)` of `x (N, T, C)`."""
    weights, (hidden,) = _parameters(x, parameters, 1)
    return _in_order(node, torch.gru(_in_order(node, x), hidden, weights, *_ONE_LAYER)[0])


def rnn(node: Node, x: Tensor, *parameters: Tensor) -> Tensor:
    """Hidden states `(N, T, H)` of `x (N, T, C)`."""
    weights, (hidden,) = _parameters(x, parameters, 1)
    layer = torch.rnn_relu if node["nonlinearity"] == "relu" else torch.rnn_tanh
    return _in_order(node, layer(_in_order(node, x), hidden, weights, *_ONE_LAYER)[0])


def _parameters(x: Tensor, parameters: tuple[Tensor, ...], count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases, and so many states `(1, N, H)` before the first step."""
    weights, states = list(parameters[:4]), list(parameters[4:])
    size = weights[1].shape[1]
    states = states or [x.new_zeros(1, size)] * count
    return weights, [state.expand(len(x), size).unsqueeze(0).contiguous() for state in states]


def _in_order(node: Node, x: Tensor) -> Tensor:
    """Against time where the node goes backwards."""
    return x.flip(1) if node["reverse"] else x
