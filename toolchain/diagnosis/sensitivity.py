"""What the quantization of each node alone does to the outputs of a graph.

Node by node, everything else in float (Wang et al., HAQ, arXiv 1811.08886, and Cai et al., ZeroQ, arXiv 2001.00281,
measure layers so, with the task's loss or a divergence where here it is the outputs' error):

    s_i = sum over outputs o of   E |o(only i quantized) - o|^2 / E |o|^2

Roundings of different nodes are nearly independent, so that to first order `sum_i s_i` is the error of the network with
all of them quantized; what goes beyond that (errors that saturate, or that meet again) is not in it.

A node's error needs only what lies behind the node: the float activations of a few samples are kept, and from the node
on the graph is run again. Samples pass in chunks that hold at most `KEPT_BYTES` of activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite, log10

import numpy as np
import torch
from torch import Tensor

from toolchain.diagnosis.isolation import FloatGraph, QuantizedNodes
from toolchain.engine.run import runnable_batches
from toolchain.engine.threads import one_thread
from toolchain.graph import Graph, mixes_samples
from toolchain.quantization import QuantizedGraph

SAMPLES = 16
KEPT_BYTES = 128 * 2**20
_TINY = 1e-300


@dataclass(frozen=True)
class Sensitivity:
    """`outputs`: energy of the error relative to that of the signal, an output of the graph each."""

    outputs: tuple[float, ...]

    @property
    def error(self) -> float:
        """Summed over the outputs."""
        return sum(self.outputs)

    @property
    def sqnr_db(self) -> float:
        """Of the outputs, each with the same weight; at most 300."""
        return ratio_db(len(self.outputs), self.error)


def measure_sensitivity(
    model: QuantizedGraph, batches: Iterable[Sequence[np.ndarray]], *, samples: int = SAMPLES
) -> dict[str, Sensitivity]:
    """Sensitivity of every activation of `model` that is rounded, or made with rounded constants, in evaluation order.

    `batches` are float inputs `(N, ...)` of the graph, of which the first `samples` samples are taken.
    """
    return measure_sensitivities({"": model}, batches, samples=samples)[""]


def measure_sensitivities(
    candidates: Mapping[str, QuantizedGraph], batches: Iterable[Sequence[np.ndarray]], *, samples: int = SAMPLES
) -> dict[str, dict[str, Sensitivity]]:
    """The same for several ways to quantize one graph, by name: the float runs are shared, and what two candidates do
    alike is measured once.

    The first candidate's graph is the float reference; the others' may differ from it by their constants, and by
    `requantize` nodes. An activation that a candidate leaves in float is absent from its result.
    """
    graph = next(iter(candidates.values())).graph
    meter = SensitivityMeter(graph, {name: QuantizedNodes(model) for name, model in candidates.items()})
    with torch.inference_mode(), one_thread():
        for inputs in sample_chunks(graph, batches, samples):
            meter.add(meter.floats.values(inputs))
    return meter.result()


class SensitivityMeter:
    """Sums over the chunks seen so far."""

    def __init__(self, graph: Graph, candidates: Mapping[str, QuantizedNodes]) -> None:
        self.floats = FloatGraph(graph)
        self._graph = graph
        self._candidates = candidates
        self._sources = {
            (candidate, name): _first_alike(candidates, candidate, name)
            for candidate, nodes in candidates.items()
            for name in graph.activations
            if nodes.is_quantized(name)
        }
        self._noise = {key: np.zeros(len(graph.outputs)) for key in self._sources}
        self._signal = np.zeros(len(graph.outputs))
        self._targets: list[Tensor] = []

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One chunk, by its float activations."""
        self.add_signal(values)
        for (candidate, name), source in self._sources.items():
            if source == candidate:
                alone = quantized_alone(self.floats, self._candidates[candidate], name, values)
                self.add_alone(candidate, name, alone, values)

    def add_signal(self, values: Mapping[str, Tensor]) -> None:
        """The float outputs of a chunk."""
        self._targets = [values[n] if n in values else self.floats.constants[n] for n in self._graph.outputs]
        self._signal += [energy(target) for target in self._targets]

    def add_alone(self, candidate: str, name: str, alone: Tensor, values: Mapping[str, Tensor]) -> None:
        """What `candidate` makes of the activation `name`, for the chunk whose signal was added last."""
        outputs = self.floats.outputs_after(name, alone, values)
        pairs = zip(outputs, self._targets, strict=True)
        self._noise[candidate, name] += [error_energy(output, target) for output, target in pairs]

    def result(self) -> dict[str, dict[str, Sensitivity]]:
        """By candidate and activation."""
        found: dict[str, dict[str, Sensitivity]] = {candidate: {} for candidate in self._candidates}
        for (candidate, name), source in self._sources.items():
            noise = self._noise[source, name] / np.maximum(self._signal, _TINY)
            found[candidate][name] = Sensitivity(tuple(float(value) for value in noise))
        return found


def quantized_alone(floats: FloatGraph, nodes: QuantizedNodes, name: str, values: Mapping[str, Tensor]) -> Tensor:
    """The activation `name` where it and its node are quantized, for float activations."""
    value = values[name]
    if nodes.has_constants(name):
        node = floats.graph.producers[name]
        value = nodes.result(node, floats.given(node, values))
    return nodes.round(name, value)


def sample_chunks(
    graph: Graph, batches: Iterable[Sequence[np.ndarray]], samples: int, *, runs: int = 1
) -> Iterator[tuple[np.ndarray, ...]]:
    """The first `samples` samples of `batches`, as many at a time as may be kept with all activations of `runs`
    runs."""
    per_sample = sum(graph.types[name].elements for name in graph.activations) * 4 * runs
    rows = max(1, KEPT_BYTES // max(per_sample, 1)) if mixes_samples(graph) is None else samples
    left = samples
    for batch in batches:
        taken = tuple(array[:left] for array in batch)
        left -= len(taken[0])
        count = -(-len(taken[0]) // rows)
        pieces = [tuple(array[i * rows : (i + 1) * rows] for array in taken) for i in range(count)]
        yield from (tuple(piece) for piece in runnable_batches(graph, pieces))
        if left <= 0:
            return


def energy(value: Tensor) -> float:
    """Sum of squares of reals; of indices and booleans their number, since they are right or wrong."""
    if not value.is_floating_point():
        return float(value.numel())
    norm = float(torch.linalg.vector_norm(value))  # in float64 it takes 40 times as long
    return (norm if isfinite(norm) else float(torch.linalg.vector_norm(value, dtype=torch.float64))) ** 2


def error_energy(value: Tensor, target: Tensor) -> float:
    """Energy of the difference; of indices and booleans the number of wrong ones."""
    if not target.is_floating_point():
        return float((value != target).sum())
    return energy(value - target)


def ratio_db(signal: float, noise: float) -> float:
    """10 log10 of signal over noise, within 300 dB either way."""
    if noise <= 0.0:
        return 300.0
    return min(max(10 * log10(max(signal, _TINY) / noise), -300.0), 300.0)


def _first_alike(candidates: Mapping[str, QuantizedNodes], candidate: str, name: str) -> str:
    """The first candidate that quantizes the activation `name` as `candidate` does."""
    nodes = candidates[candidate]
    before = islice(candidates.items(), list(candidates).index(candidate))
    return next((other for other, theirs in before if theirs.is_same(name, nodes)), candidate)
