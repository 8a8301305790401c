"""Recurrent layers step by step in plain ops: exact in float, and with integer kernels for every op in int8.

The weights of all steps are one constant. One step:

    lstm   i, f, g, o = W x + b + R h + d,   c' = sigmoid(f) c + sigmoid(i) tanh(g),   h' = sigmoid(o) tanh(c')
    gru    r, z, n = W x + b, R h + d,   h' = n + z (h - n),   n = tanh(n_x + r n_h),   r and z through the sigmoid
    rnn    h' = tanh or relu of W x + b + R h + d
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from toolchain.graph.graph import Graph, unique_name
from toolchain.graph.node import Node
from toolchain.graph.ops import RECURRENT, Op
from toolchain.graph.types import Attribute


class Writer(Protocol):
    """What nodes are written to."""

    def add(self, op: Op, *inputs: str, **attributes: Attribute) -> str:
        """Append a node; its result's name."""


@dataclass(frozen=True)
class Recurrence:
    """The weight `(G H, H)` that meets the hidden state of the step before, its bias, and H."""

    weight: str
    bias: str | None
    size: int


Step: TypeAlias = Callable[[Writer, str, Sequence[str], Recurrence], list[str]]
"""(writer, what the gates get from the input, states before, recurrence) -> states after, all `(N, ...)`."""


def lstm_step(w: Writer, given: str, states: Sequence[str], recurrence: Recurrence) -> list[str]:
    """Hidden and cell state after one step."""
    hidden, cell = states
    gates = w.add(Op.ADD, given, _recurred(w, hidden, recurrence))
    into, forget, candidate, out = _parts(w, gates, 4, recurrence.size)
    kept = w.add(Op.MUL, w.add(Op.SIGMOID, forget), cell)
    new = w.add(Op.MUL, w.add(Op.SIGMOID, into), w.add(Op.TANH, candidate))
    cell = w.add(Op.ADD, kept, new)
    return [w.add(Op.MUL, w.add(Op.SIGMOID, out), w.add(Op.TANH, cell)), cell]


def gru_step(w: Writer, given: str, states: Sequence[str], recurrence: Recurrence) -> list[str]:
    """Hidden state after one step."""
    (hidden,) = states
    reset, update, new = _parts(w, given, 3, recurrence.size)
    hidden_reset, hidden_update, hidden_new = _parts(w, _recurred(w, hidden, recurrence), 3, recurrence.size)
    reset = w.add(Op.SIGMOID, w.add(Op.ADD, reset, hidden_reset))
    update = w.add(Op.SIGMOID, w.add(Op.ADD, update, hidden_update))
    new = w.add(Op.TANH, w.add(Op.ADD, new, w.add(Op.MUL, reset, hidden_new)))
    return [w.add(Op.ADD, new, w.add(Op.MUL, update, w.add(Op.SUB, hidden, new)))]


def rnn_step(nonlinearity: str) -> Step:
    """Hidden state after one step."""
    op = Op(nonlinearity)

    def step(w: Writer, given: str, states: Sequence[str], recurrence: Recurrence) -> list[str]:
        return [w.add(op, w.add(Op.ADD, given, _recurred(w, states[0], recurrence)))]

    return step


def projected(w: Writer, x: str, weight: str, bias: str | None) -> str:
    """`W x + b`."""
    return w.add(Op.LINEAR, *((x, weight) if bias is None else (x, weight, bias)))


def unroll(graph: Graph, wanted: Callable[[Node], bool] = lambda node: True, *, any_batch: bool = False) -> Graph:
    """`graph` with the recurrent nodes that are `wanted` written out; each result keeps its name, what lies between is
    called `result/op_number`. With `any_batch` every tensor has the batch of the sequence, also what all samples start
    from."""
    if not any(node.op in RECURRENT and wanted(node) for node in graph.nodes):
        return graph
    writer = _Unrolled(graph, any_batch=any_batch)
    for node in graph.nodes:
        if node.op in RECURRENT and wanted(node):
            writer.write_out(node)
        else:
            writer.nodes.append(node)
    return graph.with_nodes(writer.nodes, writer.constants)


def read_steps(graph: Graph) -> Graph:
    """`graph` where a slice of one step out of a concat of steps reads that step alone."""
    return graph.with_nodes(_read_step(graph, node) for node in graph.nodes)


def _read_step(graph: Graph, node: Node) -> Node:
    joined = graph.producers.get(node.inputs[0])
    if node.op is not Op.SLICE or joined is None or joined.op is not Op.CONCAT or node["axes"] != (joined["axis"],):
        return node
    (start,), (stop,) = node["starts"], node["stops"]
    if stop != start + 1 or any(graph.types[name].shape[joined["axis"]] != 1 for name in joined.inputs):
        return node
    shape = graph.types[node.output].shape
    return Node(Op.RESHAPE, node.name, (joined.inputs[start],), node.outputs, {"shape": shape}, node.source)


class _Unrolled:
    """The nodes of a graph being written out."""

    def __init__(self, graph: Graph, *, any_batch: bool) -> None:
        self._any_batch = any_batch
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = dict(graph.constants)
        self._graph = graph
        self._taken = set(graph.types)
        self._node = graph.nodes[0]
        self._found: dict[tuple[tuple[str, ...], Op, bool], tuple[list[str], list[str]]] = {}

    def add(self, op: Op, *inputs: str, **attributes: Attribute) -> str:
        name = f"{self._node.output}/{op}_{len(self.nodes)}"
        name = unique_name(name, self._taken) if name in self._taken else name
        self._taken.add(name)
        self.nodes.append(Node(op, name, inputs, (name,), attributes, self._node.source))
        return name

    def write_out(self, node: Node) -> None:
        """The steps of `node`, unless it shares them with one before, and its result."""
        self._node = node
        key = (node.inputs, node.op, bool(node["reverse"]))
        if key not in self._found:
            self._found[key] = self._steps(node)
        hidden, last = self._found[key]
        shape = self._graph.types[node.output].shape
        if node.attributes.get("gives") == "cell":
            self._finish(node, Op.RESHAPE, (last[1],), {"shape": shape})
        elif len(hidden) == 1:
            self._finish(node, Op.RESHAPE, (hidden[0],), {"shape": shape})
        else:
            self._finish(node, Op.CONCAT, tuple(hidden), {"axis": 1})

    def _finish(self, node: Node, op: Op, inputs: tuple[str, ...], attributes: Mapping[str, Attribute]) -> None:
        self.nodes.append(replace(node, op=op, inputs=inputs, attributes=attributes))

    def _steps(self, node: Node) -> tuple[list[str], list[str]]:
        """Hidden states `(N, 1, H)` in the order of time, and the states `(N, H)` after the last step."""
        x, weight, recurrent_weight, bias, recurrent_bias, *starts = node.inputs
        batch, steps, _ = self._graph.types[x].shape
        rows, size = self._graph.types[recurrent_weight].shape
        recurrence = Recurrence(recurrent_weight, recurrent_bias, size)
        # what the steps read of the sequence does not wait for them
        given = projected(self, x, weight, bias)
        states = starts or self._zeros(node, size)
        if self._any_batch:
            states = [self._repeated(given, state, batch, size) for state in states]
        hidden = []
        for at in reversed(range(steps)) if node["reverse"] else range(steps):
            step = self.add(Op.SLICE, given, axes=(1,), starts=(at,), stops=(at + 1,), steps=(1,))
            step = self.add(Op.RESHAPE, step, shape=(batch, rows))
            states = step_of(node)(self, step, states, recurrence)
            hidden.append(self.add(Op.RESHAPE, states[0], shape=(batch, 1, size)))
        return hidden[::-1] if node["reverse"] else hidden, list(states)

    def _zeros(self, node: Node, size: int) -> list[str]:
        name = self._constant("zeros", np.zeros((1, size), np.float32))
        return [name] * (2 if node.op is Op.LSTM else 1)

    def _constant(self, suffix: str, values: np.ndarray) -> str:
        name = unique_name(f"{self._node.output}/{suffix}", self._taken)
        self._taken.add(name)
        self.constants[name] = values
        return name

    def _repeated(self, given: str, state: str, batch: int, size: int) -> str:
        """A state that is the same of all samples, once a sample of `given (N, T, G H)`."""
        if state not in self.constants:
            return state
        place = self.add(Op.SLICE, given, axes=(1, 2), starts=(0, 0), stops=(1, size), steps=(1, 1))
        row = self.add(Op.RESHAPE, place, shape=(batch, size))
        return self.add(Op.ADD, self.add(Op.MUL, row, self._constant("zero", np.zeros(1, np.float32))), state)


def step_of(node: Node) -> Step:
    """The step of a recurrent node."""
    if node.op is Op.RNN:
        return rnn_step(str(node["nonlinearity"]))
    return lstm_step if node.op is Op.LSTM else gru_step


def _recurred(w: Writer, hidden: str, recurrence: Recurrence) -> str:
    return projected(w, hidden, recurrence.weight, recurrence.bias)


def _parts(w: Writer, x: str, count: int, size: int) -> list[str]:
    """Parts of `size` along the last axis of `(N, count * size)`."""
    bounds = [(at * size, (at + 1) * size) for at in range(count)]
    return [w.add(Op.SLICE, x, axes=(1,), starts=(low,), stops=(high,), steps=(1,)) for low, high in bounds]
