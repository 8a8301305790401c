"""Where the noise at a network's outputs comes from: from the constants of each node, and from each activation on its
way to each node that reads it.

    w_i      energy of the output error, relative to the signal's, where only the constants of node i are rounded
    a_(t,r)  the same where only activation t is rounded, and only node r reads it so

Energies are balanced as in `toolchain.fidelity`: every feature of every output counts alike. Small errors add up, so
that the noise of a network in which some nodes compute in float is that of the others: w_i where node i is an integer
node, a_(t,r) unless both the maker of t and r are float nodes. Ops that only move values (`rounds` is false) commute
with rounding: t reaches its readers through them.

Of a network that feeds its state back, each of these is the mean over some steps in which the state comes from the run
with that one rounding: an error that is kept in the state counts as often as it comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from toolchain.diagnosis.isolation import FloatGraph, QuantizedNodes
from toolchain.engine.evaluate import evaluate
from toolchain.engine.threads import one_thread
from toolchain.fidelity import feature_axis
from toolchain.graph import Graph, Node
from toolchain.quantization import QUANTIZATION_RULES, QuantizedGraph

OUTPUT = ""
"""Stands for what takes the graph's outputs, as a reader."""


@dataclass(frozen=True)
class Path:
    """An activation on its way to a reader (its output, or `OUTPUT`) through the nodes `moves`."""

    tensor: str
    reader: str
    moves: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Noise:
    """Relative energies at the graph's outputs: `constants` by the node's output, `activations` by (tensor, reader)."""

    constants: Mapping[str, float]
    activations: Mapping[tuple[str, str], float]

    @property
    def total(self) -> float:
        return sum(self.constants.values()) + sum(self.activations.values())

    def removable_ways(self, graph: Graph, keeps_weights: bool) -> tuple[tuple[str, str], ...]:
        """Ways whose noise is gone where enough nodes of `graph` are fine. An input is stored finely where float nodes
        alone read it; beside int16 nodes, which keep their weights at int8, it stays at int8."""
        ends = {tensor for tensor, reader in self.activations if reader == OUTPUT}
        return tuple(
            (tensor, reader)
            for tensor, reader in self.activations
            if tensor in graph.producers or not (keeps_weights or tensor in ends)
        )

    def removable(self, graph: Graph, keeps_weights: bool) -> float:
        """What would go were all nodes of `graph` fine."""
        activations = sum(self.activations[way] for way in self.removable_ways(graph, keeps_weights))
        return activations + (0.0 if keeps_weights else sum(self.constants.values()))


Episode: TypeAlias = Sequence[Sequence[np.ndarray]]
"""Inputs (N, ...) of steps that follow one another; one step where nothing is fed back."""


def measure_noise(
    model: QuantizedGraph, graph: Graph, episodes: Iterable[Episode], fed_back: Sequence[tuple[int, int]] = ()
) -> Noise:
    """Noise of every part of `model`, whose float graph is `graph`; `fed_back` are places of inputs and of the outputs
    that go back to them at the next step."""
    nodes, floats = QuantizedNodes(model), FloatGraph(graph)
    paths = list(find_paths(graph, nodes))
    constants = {n.output: 0.0 for n in graph.nodes if nodes.has_constants(n.output)}
    activations = {(path.tensor, path.reader): 0.0 for path in paths}
    count = 0
    with torch.inference_mode(), one_thread():
        for episode in episodes:
            known, count = _Known(floats, episode, fed_back), count + 1
            for name in constants:
                constants[name] += known.error(partial(_outputs_with, name, nodes, floats))
            for path in paths:
                activations[path.tensor, path.reader] += known.error(partial(_outputs_along, path, nodes, floats))
    scale = 1.0 / max(count, 1)
    return Noise(
        {name: value * scale for name, value in constants.items()},
        {key: value * scale for key, value in activations.items()},
    )


class _Known:
    """What the float graph gives in an episode: every activation of its first step, and the outputs of all."""

    def __init__(self, floats: FloatGraph, episode: Episode, fed_back: Sequence[tuple[int, int]]) -> None:
        self._floats, self._episode, self._fed_back = floats, episode, fed_back
        self._first: Mapping[str, Tensor] = floats.values(episode[0])
        later = (floats.values(inputs) for inputs in episode[1:])
        self._balances = [Balance(self._outputs(values)) for values in chain((self._first,), later)]

    def _outputs(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        constants = self._floats.constants
        return [values[name] if name in values else constants[name] for name in self._floats.graph.outputs]

    def error(self, outputs_of: Callable[[Mapping[str, Tensor]], list[Tensor]]) -> float:
        """Mean error over the steps of `outputs_of`, which gives outputs from a step's float activations."""
        total, values = 0.0, self._first
        for step, balance in enumerate(self._balances):
            outputs = outputs_of(values)
            total += balance.error(outputs)
            if step + 1 < len(self._episode):
                inputs = list(self._episode[step + 1])
                for place, output in self._fed_back:
                    inputs[place] = outputs[output].numpy()
                values = self._floats.values(inputs)
        return total / len(self._balances)


def _outputs_with(name: str, nodes: QuantizedNodes, floats: FloatGraph, values: Mapping[str, Tensor]) -> list[Tensor]:
    """The graph's outputs where only the constants of the node that makes `name` are rounded."""
    node = floats.graph.producers[name]
    return floats.outputs_after(name, nodes.result(node, floats.given(node, values)), values)


def find_paths(graph: Graph, nodes: QuantizedNodes) -> Iterator[Path]:
    """Every way of a rounded activation to the nodes that compute with it."""
    for name in graph.activations:
        if name in nodes.rounded:
            found: dict[str, Path] = {}
            for path in _paths_from(graph, name, name, ()):
                found.setdefault(path.reader, path)
            yield from found.values()


def _paths_from(graph: Graph, tensor: str, at: str, moves: tuple[Node, ...]) -> Iterator[Path]:
    if at in graph.outputs:
        yield Path(tensor, OUTPUT, moves)
    for reader in graph.consumers.get(at, ()):
        if QUANTIZATION_RULES[reader.op].rounds or not graph.is_real(reader.output):
            yield Path(tensor, reader.output, moves)
        else:
            yield from _paths_from(graph, tensor, reader.output, (*moves, reader))


def _outputs_along(path: Path, nodes: QuantizedNodes, floats: FloatGraph, values: Mapping[str, Tensor]) -> list[Tensor]:
    """The graph's outputs where only the path's reader sees the rounded activation."""
    known = {**floats.constants, **values, path.tensor: nodes.round(path.tensor, values[path.tensor])}
    for move in path.moves:
        known[move.output] = evaluate(move, [known[name] for name in move.inputs])
    if path.reader == OUTPUT:
        return [known[name] for name in floats.graph.outputs]
    reader = floats.graph.producers[path.reader]
    return floats.outputs_after(path.reader, evaluate(reader, [known[name] for name in reader.inputs]), values)


class Balance:
    """Error energies of outputs, relative to `targets`, each feature's to its own signal."""

    def __init__(self, targets: Sequence[Tensor]) -> None:
        self._targets = targets
        self._weights = [_feature_weights(target) for target in targets]
        self._features = sum(weights.numel() for weights in self._weights)

    def error(self, outputs: Sequence[Tensor]) -> float:
        """The mean over all features."""
        pairs = zip(outputs, self._targets, self._weights, strict=True)
        total = sum(
            float(((output - target) * weights).square().sum()) for output, target, weights in pairs if len(weights)
        )
        return total / max(self._features, 1)


def _feature_weights(target: Tensor) -> Tensor:
    """What makes each feature's energy one, shaped to multiply `target`; empty for indices and booleans."""
    if not target.is_floating_point() or not target.dim():
        return torch.zeros(0)
    axis = feature_axis(target.shape)
    signal = target.square().sum([other for other in range(target.dim()) if other != axis], keepdim=True)
    return signal.clamp_min(max(1e-3 * float(signal.mean()), 1e-30)).rsqrt()
