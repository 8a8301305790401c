"""What is measured of one layer while samples pass: energies of its errors, shift of its means, ranges of its channels.

Four values of a layer's result are compared: float (y), quantized alone on float inputs, float on the inputs of the
quantized run, and in the quantized run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from toolchain.diagnosis.isolation import FloatGraph, QuantizedNodes
from toolchain.diagnosis.sensitivity import energy, error_energy
from toolchain.engine.evaluate import evaluate
from toolchain.engine.observe import counted_every, measure
from toolchain.errors import UnsupportedError
from toolchain.graph import Graph, unsupported
from toolchain.quantization import TensorStatistics
from toolchain.quantization.statistics import channel_axis


@dataclass
class Energies:
    """Sums of squares over the samples so far, of signals (`own`, `given`) and of errors."""

    own: float = 0.0
    given: float = 0.0
    noise_in: float = 0.0
    noise_out: float = 0.0
    added: float = 0.0
    inherited: float = 0.0
    weights: float = 0.0
    result: float = 0.0
    saturation: float = 0.0


@dataclass
class LayerMeter:
    """Sums over the samples seen so far of the activation `name`."""

    graph: Graph
    name: str
    energies: Energies = field(default_factory=Energies)
    elements: int = 0
    clipped: int = 0
    statistics: TensorStatistics = field(default_factory=TensorStatistics)
    channel_energies: np.ndarray | float = 0.0
    _samples: int = 0
    _sum: np.ndarray | float = 0.0
    _squares: np.ndarray | float = 0.0

    def add(
        self, floats: FloatGraph, nodes: QuantizedNodes, values: Mapping[str, Tensor], run: Mapping[str, Tensor]
    ) -> Tensor:
        """One chunk: float activations and those of the quantized run. Returns the result quantized alone."""
        node, target = self.graph.producers.get(self.name), values[self.name]
        sums, unrounded = self.energies, target
        if node is not None:
            read = [n for n in node.inputs if n in values and target.is_floating_point() and self.graph.is_real(n)]
            sums.given += sum(energy(values[n]) for n in read)
            sums.noise_in += sum(error_energy(run[n], values[n]) for n in read)
            sums.inherited += error_energy(evaluate(node, floats.given(node, run)), target)
            if nodes.has_constants(self.name):
                unrounded = nodes.result(node, floats.given(node, values))
                sums.weights += error_energy(unrounded, target)
        alone = nodes.round(self.name, unrounded)
        rounded = nodes.round(self.name, target) if unrounded is not target else alone
        sums.own += energy(target)
        sums.noise_out += error_energy(run[self.name], target)
        sums.added += error_energy(alone, target)
        sums.result += error_energy(rounded, target)
        self._add_values(nodes, target)
        self._add_shift(alone - target)
        return alone

    def bias_share(self) -> float | None:
        """Share of the error added that is a shift of its channels' means; None for fewer than two samples."""
        if self._samples < 2 or not self.energies.added:
            return None
        pairs = self._samples * (self._samples - 1)
        shift = float(np.mean((np.square(self._sum) - self._squares) / pairs))
        return min(max(shift / (self.energies.added / self.elements), 0.0), 1.0)

    def _add_values(self, nodes: QuantizedNodes, value: Tensor) -> None:
        every = counted_every(self.graph.types[self.name].elements)
        try:
            found = measure(value, channel_axis(self.graph, self.name), every=every, seen=self.elements)
        except ValueError as error:
            node = self.graph.producers.get(self.name)
            if node is None:
                raise UnsupportedError(f"input {self.name} holds NaN or infinity", hint="mend the samples") from error
            raise unsupported(node, "becomes NaN or infinite on the samples", "look at the layers before it") from error
        self.statistics = self.statistics.merged(found)
        self.elements += value.numel()
        self.channel_energies = self.channel_energies + channel_energies(value, channel_axis(self.graph, self.name))
        self._add_clipped(nodes, value)

    def _add_clipped(self, nodes: QuantizedNodes, value: Tensor) -> None:
        params = nodes.rounded.get(self.name)
        if params is None:
            return
        (low, high), slack = params.bounds, params.step / 2
        if low - slack <= self.statistics.minimum and self.statistics.maximum <= high + slack:
            return
        outside = (value < low - slack) | (value > high + slack)
        self.clipped += int(outside.sum())
        self.energies.saturation += energy(torch.where(outside, value - value.clamp(low, high), 0.0))

    def _add_shift(self, error: Tensor) -> None:
        axis = channel_axis(self.graph, self.name)
        others = [a for a in range(1, error.dim()) if a != axis]
        means = (error.mean(others) if others else error).double()
        if not torch.isfinite(means).all():  # the sum of a mask's minus infinities is beyond float32
            means = error.double().mean(others)
        rows = means.reshape(len(means), -1).numpy() if means.dim() else means.reshape(1, 1).numpy()
        self._samples += len(rows)
        self._sum = self._sum + rows.sum(0)
        self._squares = self._squares + np.square(rows).sum(0)


def channel_energies(value: Tensor, axis: int) -> np.ndarray:
    """Sum of squares `(C,)` of each channel."""
    others = [a for a in range(value.dim()) if a != axis]
    norms = torch.linalg.vector_norm(value, dim=others) if others else value.abs().reshape(-1)
    if not torch.isfinite(norms).all():
        norms = torch.linalg.vector_norm(value, dim=others, dtype=torch.float64)
    squares: np.ndarray = norms.double().square().numpy()
    return squares


def spread(sizes: np.ndarray, shares: np.ndarray | None = None) -> float | None:
    """The largest of the channels' sizes over the median of those that are not zero, which may be that of `shares`;
    None where there are no two channels."""
    live = sizes > 0
    if live.sum() < 2:
        return None
    order = np.argsort(sizes[live])
    mass = np.cumsum(np.ones(len(order)) if shares is None else shares[live][order])
    median = sizes[live][order][np.searchsorted(mass, mass[-1] / 2)]
    return float(sizes.max() / median)
