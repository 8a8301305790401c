"""Where the noise at a network's outputs comes from: from the constants of each node, and from each activation on its
way to each node that reads it.

    w_i      energy of the output error, relative to the signal's, where only the constants of node i are rounded
    a_(t,r)  the same where only activation t is rounded, and only node r reads it so

Energies are balanced as in `toolchain.fidelity`: every feature of every output counts alike. Small errors add up, so
that the noise of a network in which some nodes compute in float is that of the others: w_i where node i is an integer
node, a_(t,r) unless both the maker of t and r are float nodes. Ops that only move values (`rounds` is false) commute
with rounding: t reaches its readers through them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toolchain.diagnosis.isolation import FloatGraph, QuantizedNodes
from toolchain.diagnosis.sensitivity import sample_chunks
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

    def removable(self, made: Collection[str], keeps_weights: bool) -> float:
        """What would go were all nodes that make the tensors `made` fine: all but the rounding of inputs, and of
        weights where these stay."""
        activations = sum(value for (tensor, _), value in self.activations.items() if tensor in made)
        return activations + (0.0 if keeps_weights else sum(self.constants.values()))


def measure_noise(model: QuantizedGraph, graph: Graph, batches: Iterable[Sequence[np.ndarray]], samples: int) -> Noise:
    """Noise of every part of `model`, whose float graph is `graph`, on the first `samples` samples of `batches`."""
    nodes, floats = QuantizedNodes(model), FloatGraph(graph)
    paths = list(find_paths(graph, nodes))
    constants = {n.output: 0.0 for n in graph.nodes if nodes.has_constants(n.output)}
    activations = {(path.tensor, path.reader): 0.0 for path in paths}
    chunks = 0
    with torch.inference_mode(), one_thread():
        for chunk in sample_chunks(graph, batches, samples):
            values = floats.values(chunk)
            wanted = [values[name] if name in values else floats.constants[name] for name in graph.outputs]
            balance, chunks = Balance(wanted), chunks + 1
            for name in constants:
                made = nodes.result(graph.producers[name], floats.given(graph.producers[name], values))
                constants[name] += balance.error(floats.outputs_after(name, made, values))
            for path in paths:
                outputs = _outputs_along(path, nodes.round(path.tensor, values[path.tensor]), floats, values)
                activations[path.tensor, path.reader] += balance.error(outputs)
    scale = 1.0 / max(chunks, 1)
    return Noise(
        {name: value * scale for name, value in constants.items()},
        {key: value * scale for key, value in activations.items()},
    )


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


def _outputs_along(path: Path, rounded: Tensor, floats: FloatGraph, values: Mapping[str, Tensor]) -> list[Tensor]:
    """The graph's outputs where only the path's reader sees the rounded activation."""
    known = {**floats.constants, **values, path.tensor: rounded}
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
