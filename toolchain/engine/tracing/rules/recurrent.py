"""Recurrent layers: one node a layer and direction. Cells are one step in plain ops, and so is what a loop of the
user's own makes of them.

    forward and backward read the same sequence,  y = concat(forward, backward),  which the next layer reads
    h_n, c_n = the states after the last step, which backward is the first in time
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.graph import Op
from toolchain.graph.ops import GATES
from toolchain.graph.recurrence import Recurrence, Step, gru_step, lstm_step, projected, rnn_step
from toolchain.graph.types import Attribute

_NO_PROJECTION = "its hidden states are projected: set proj_size=0 and put a Linear layer behind it"
_PACKED = "it reads a packed sequence: give it a padded tensor"


@dataclass(frozen=True)
class _Kind:
    """What is alike in all layers and directions of one module."""

    op: Op
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


def _lstm(b: GraphBuilder, x: str, states: Sequence[str], parameters: Sequence[str], *rest: Any) -> list[str]:
    return _recurrent(b, _Kind(Op.LSTM), x, states, parameters, *_plain(rest))


def _one_state(kind: _Kind) -> Rule:
    def rule(b: GraphBuilder, x: str, state: str, parameters: Sequence[str], *rest: Any) -> list[str]:
        return _recurrent(b, kind, x, (state,), parameters, *_plain(rest))

    return rule


def _plain(rest: Sequence[Any]) -> Sequence[Any]:
    if not isinstance(rest[0], bool):
        raise CannotLower(_PACKED)
    return rest


def _recurrent(
    b: GraphBuilder,
    kind: _Kind,
    x: str,
    states: Sequence[str],
    parameters: Sequence[str],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[str]:
    """y, h_n and, of an LSTM, c_n."""
    directions = 2 if bidirectional else 1
    each = 4 if has_biases else 2
    if len(parameters) != each * num_layers * directions:
        raise CannotLower(_NO_PROJECTION)
    sequence = x if batch_first else _swapped(b, x)
    last: list[list[str]] = [[] for _ in states]
    for depth in range(num_layers):
        results = []
        for direction in range(directions):
            at = depth * directions + direction
            weights = _weights(b, kind, parameters[each * at : each * (at + 1)])
            starts = _states_of(b, states, at)
            results.append(_add_node(b, kind, (sequence, *weights, *starts), bool(direction), last))
        sequence = results[0] if directions == 1 else b.add(Op.CONCAT, *results, axis=2)
    return [sequence if batch_first else _swapped(b, sequence), *(_stacked(b, parts) for parts in last)]


def _add_node(b: GraphBuilder, kind: _Kind, inputs: Sequence[str], reverse: bool, last: Sequence[list[str]]) -> str:
    """Hidden states (N, T, H) of one layer and direction; its last states (1, N, H) are put to `last`."""
    batch, steps, _ = b.shapes[inputs[0]]
    hidden = b.add(kind.op, *inputs, reverse=reverse, **kind.attributes)
    end = 0 if reverse else steps - 1
    step = b.add(Op.SLICE, hidden, axes=(1,), starts=(end,), stops=(end + 1,), steps=(1,))
    shape = (1, batch, b.shapes[hidden][2])
    last[0].append(b.reshape(step, shape))
    for parts in last[1:]:
        parts.append(b.reshape(b.add(kind.op, *inputs, reverse=reverse, gives="cell"), shape))
    return hidden


def _weights(b: GraphBuilder, kind: _Kind, parameters: Sequence[str]) -> list[str]:
    weight, recurrent, *biases = parameters
    features, hidden = b.shapes[recurrent]
    if features != GATES[kind.op] * hidden:
        raise CannotLower(_NO_PROJECTION)
    return [weight, recurrent, *(biases or _no_biases(b, weight))]


def _no_biases(b: GraphBuilder, weight: str) -> list[str]:
    zeros = np.zeros(b.shapes[weight][0], np.float32)
    return [b.constant(zeros, f"{weight}.{name}") for name in ("bias", "recurrent_bias")]


def _states_of(b: GraphBuilder, states: Sequence[str], at: int) -> list[str]:
    """The states that layer `at` starts from; none where all are zeros."""
    known = [b.value_of(state) for state in states]
    if all(array is not None and not array[at].any() for array in known):
        return []
    return [_state_of(b, state, at) for state in states]


def _state_of(b: GraphBuilder, states: str, at: int) -> str:
    """Layer `at` of `(L, N, H)`; one row where it is the same of every sample."""
    _, batch, size = b.shapes[states]
    if (known := b.value_of(states)) is not None:
        rows = known[at]
        same = bool((rows == rows[:1]).all())
        return b.constant(np.ascontiguousarray(rows[:1] if same else rows))
    taken = b.add(Op.SLICE, states, axes=(0,), starts=(at,), stops=(at + 1,), steps=(1,))
    return b.reshape(taken, (batch, size))


def _swapped(b: GraphBuilder, x: str) -> str:
    """Batch and time change places."""
    return b.add(Op.PERMUTE, x, axes=(1, 0, 2))


def _stacked(b: GraphBuilder, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else b.add(Op.CONCAT, *parts, axis=0)


def _cell(step: Step) -> Rule:
    """The rule of one step that torch calls by itself."""

    def rule(
        b: GraphBuilder,
        x: str,
        states: str | Sequence[str],
        weight: str,
        recurrent: str,
        bias: str | None = None,
        recurrent_bias: str | None = None,
    ) -> str | list[str]:
        held = [states] if isinstance(states, str) else states
        recurrence = Recurrence(recurrent, recurrent_bias, b.shapes[recurrent][1])
        found = step(b, projected(b, x, weight, bias), held, recurrence)
        return found[0] if isinstance(states, str) else found

    return rule


_RELU = {"nonlinearity": "relu"}

RECURRENT_LAYERS: dict[str, Rule] = {
    "lstm": _lstm,
    "gru": _one_state(_Kind(Op.GRU)),
    "rnn_tanh": _one_state(_Kind(Op.RNN)),
    "rnn_relu": _one_state(_Kind(Op.RNN, _RELU)),
    "lstm_cell": _cell(lstm_step),
    "gru_cell": _cell(gru_step),
    "rnn_tanh_cell": _cell(rnn_step("tanh")),
    "rnn_relu_cell": _cell(rnn_step("relu")),
}
