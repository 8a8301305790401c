"""Recurrent layers, step by step in plain ops: exact in float, and with integer kernels for every op in int8. The
weights of all steps are one constant.

    forward and backward read the same sequence,  y = concat(forward, backward),  which the next layer reads
    h_n, c_n = the states after the last step, which backward is the first in time

One step:

    lstm   i, f, g, o = W x + b + R h + d,   c' = sigmoid(f) c + sigmoid(i) tanh(g),   h' = sigmoid(o) tanh(c')
    gru    r, z, n = W x + b, R h + d,   h' = n + z (h - n),   n = tanh(n_x + r n_h),   r and z through the sigmoid
    rnn    h' = tanh or relu of W x + b + R h + d
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.graph import Op

_NO_PROJECTION = "its hidden states are projected: set proj_size=0 and put a Linear layer behind it"
_PACKED = "it reads a packed sequence: give it a padded tensor"


Step: TypeAlias = Callable[[GraphBuilder, str, Sequence[str], str, str | None], list[str]]
"""(builder, what the gates get from the input, states before, recurrent weight, its bias) -> states after."""


@dataclass(frozen=True)
class _Layer:
    """What is alike in all layers and directions of one module; `gates` of the hidden size each weight has."""

    step: Step
    gates: int


def _lstm(b: GraphBuilder, x: str, states: Sequence[str], parameters: Sequence[str], *rest: Any) -> list[str]:
    return _recurrent(b, _Layer(_lstm_step, 4), x, states, parameters, *_plain(rest))


def _gru(b: GraphBuilder, x: str, state: str, parameters: Sequence[str], *rest: Any) -> list[str]:
    return _recurrent(b, _Layer(_gru_step, 3), x, (state,), parameters, *_plain(rest))


def _rnn(op: Op) -> Rule:
    def rule(b: GraphBuilder, x: str, state: str, parameters: Sequence[str], *rest: Any) -> list[str]:
        return _recurrent(b, _Layer(_rnn_step(op), 1), x, (state,), parameters, *_plain(rest))

    return rule


def _plain(rest: Sequence[Any]) -> Sequence[Any]:
    if not isinstance(rest[0], bool):
        raise CannotLower(_PACKED)
    return rest


def _recurrent(
    b: GraphBuilder,
    layer: _Layer,
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
            weights = _weights(b, layer, parameters[each * at : each * (at + 1)])
            starts = [_state_of(b, state, at) for state in states]
            results.append(_add_node(b, layer, (sequence, *weights, *starts), bool(direction), last))
        sequence = results[0] if directions == 1 else b.add(Op.CONCAT, *results, axis=2)
    return [sequence if batch_first else _swapped(b, sequence), *(_stacked(b, parts) for parts in last)]


def _add_node(b: GraphBuilder, layer: _Layer, inputs: Sequence[str], reverse: bool, last: Sequence[list[str]]) -> str:
    """Hidden states (N, T, H) of one layer and direction; its last states (1, N, H) are put to `last`."""
    sequence, weight, recurrent, bias, recurrent_bias, *starts = inputs
    batch, steps, _ = b.shapes[sequence]
    size = b.shapes[recurrent][1]
    # what the steps read of the sequence does not wait for them
    projected = _linear(b, sequence, weight, bias)
    states = [_rows(b, start, batch) for start in starts]
    hidden: list[str] = []
    for at in reversed(range(steps)) if reverse else range(steps):
        step = b.add(Op.SLICE, projected, axes=(1,), starts=(at,), stops=(at + 1,), steps=(1,))
        given = b.reshape(step, (batch, b.shapes[recurrent][0]))
        states = layer.step(b, given, states, recurrent, recurrent_bias)
        hidden.append(b.reshape(states[0], (batch, 1, size)))
    for parts, state in zip(last, states, strict=True):
        parts.append(b.reshape(state, (1, batch, size)))
    hidden = hidden[::-1] if reverse else hidden
    return hidden[0] if steps == 1 else b.add(Op.CONCAT, *hidden, axis=1)


def _rows(b: GraphBuilder, state: str, batch: int) -> str:
    """A start that is the same of every sample, once a sample."""
    if b.shapes[state][0] == batch:
        return state
    return b.constant(np.repeat(b.constants[state], batch, axis=0))


def _weights(b: GraphBuilder, layer: _Layer, parameters: Sequence[str]) -> list[str]:
    weight, recurrent, *biases = parameters
    features, hidden = b.shapes[recurrent]
    if features != layer.gates * hidden:
        raise CannotLower(_NO_PROJECTION)
    return [weight, recurrent, *(biases or _no_biases(b, weight))]


def _no_biases(b: GraphBuilder, weight: str) -> list[str]:
    zeros = np.zeros(b.shapes[weight][0], np.float32)
    return [b.constant(zeros, f"{weight}.{name}") for name in ("bias", "recurrent_bias")]


def _state_of(b: GraphBuilder, states: str, at: int) -> str:
    """Layer `at` of `(L, N, H)`; one row where it is the same of every sample."""
    _, batch, size = b.shapes[states]
    if states in b.constants:
        rows = b.constants[states][at]
        same = bool((rows == rows[:1]).all())
        return b.constant(np.ascontiguousarray(rows[:1] if same else rows))
    taken = b.add(Op.SLICE, states, axes=(0,), starts=(at,), stops=(at + 1,), steps=(1,))
    return b.reshape(taken, (batch, size))


def _swapped(b: GraphBuilder, x: str) -> str:
    """Batch and time change places."""
    return b.add(Op.PERMUTE, x, axes=(1, 0, 2))


def _stacked(b: GraphBuilder, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else b.add(Op.CONCAT, *parts, axis=0)


def _lstm_step(b: GraphBuilder, given: str, states: Sequence[str], recurrent: str, bias: str | None) -> list[str]:
    hidden, cell = states
    into, forget, candidate, out = _parts(b, b.add(Op.ADD, given, _linear(b, hidden, recurrent, bias)), 4)
    kept = b.add(Op.MUL, b.add(Op.SIGMOID, forget), cell)
    new = b.add(Op.MUL, b.add(Op.SIGMOID, into), b.add(Op.TANH, candidate))
    cell = b.add(Op.ADD, kept, new)
    return [b.add(Op.MUL, b.add(Op.SIGMOID, out), b.add(Op.TANH, cell)), cell]


def _gru_step(b: GraphBuilder, given: str, states: Sequence[str], recurrent: str, bias: str | None) -> list[str]:
    (hidden,) = states
    reset, update, new = _parts(b, given, 3)
    hidden_reset, hidden_update, hidden_new = _parts(b, _linear(b, hidden, recurrent, bias), 3)
    reset = b.add(Op.SIGMOID, b.add(Op.ADD, reset, hidden_reset))
    update = b.add(Op.SIGMOID, b.add(Op.ADD, update, hidden_update))
    new = b.add(Op.TANH, b.add(Op.ADD, new, b.add(Op.MUL, reset, hidden_new)))
    return [b.add(Op.ADD, new, b.add(Op.MUL, update, b.add(Op.SUB, hidden, new)))]


def _rnn_step(op: Op) -> Step:
    def step(b: GraphBuilder, given: str, states: Sequence[str], recurrent: str, bias: str | None) -> list[str]:
        return [b.add(op, b.add(Op.ADD, given, _linear(b, states[0], recurrent, bias)))]

    return step


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
        found = step(b, _linear(b, x, weight, bias), held, recurrent, recurrent_bias)
        return found[0] if isinstance(states, str) else found

    return rule


def _linear(b: GraphBuilder, x: str, weight: str, bias: str | None) -> str:
    return b.add(Op.LINEAR, *((x, weight) if bias is None else (x, weight, bias)))


def _parts(b: GraphBuilder, x: str, count: int) -> list[str]:
    """Equal parts along the last axis."""
    size = b.shapes[x][1] // count
    return [
        b.add(Op.SLICE, x, axes=(1,), starts=(at * size,), stops=((at + 1) * size,), steps=(1,)) for at in range(count)
    ]


RECURRENT_LAYERS: dict[str, Rule] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": _rnn(Op.TANH),
    "rnn_relu": _rnn(Op.RELU),
    "lstm_cell": _cell(_lstm_step),
    "gru_cell": _cell(_gru_step),
    "rnn_tanh_cell": _cell(_rnn_step(Op.TANH)),
    "rnn_relu_cell": _cell(_rnn_step(Op.RELU)),
}
