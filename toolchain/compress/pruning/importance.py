"""How much each channel of a group matters, one function an importance, all in `IMPORTANCES`.

`w` runs over the weights, biases, batch-norm scales and offsets of a channel (batch-norm statistics are no
weights); `x_j` are the columns of the channel in the input of a layer that reads it and `W_j` the weights it
is read with.

    l1            sum |w|
    l2            sqrt(sum w^2)                       Li et al., arXiv 1608.08710, over the whole group
    path          sqrt(sum_j (s_j |W_j|_2)^2)         s_j: length of the weights that made the channel
    contribution  sqrt(sum_j (mean |x_j| |W_j|_2)^2)  the same, the channel's size measured on samples
    random        uniform in [0, 1)                                 control

Scaling what makes a channel by a and what reads it by 1/a changes nothing that a network with ReLU computes,
but it changes `l1` and `l2`. `path` is invariant, as the norm of Path-SGD (Neyshabur et al., arXiv
1506.02617): it weighs a node by what it passes on. It is therefore the default: `contribution` is it with the
activations measured, the better one where samples are at hand.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np

from toolchain.compress.channels.groups import ChannelGroup, Place
from toolchain.graph import WEIGHTED, Graph, Node, Op


class Importance(StrEnum):
    L1 = "l1"
    L2 = "l2"
    PATH = "path"
    CONTRIBUTION = "contribution"
    RANDOM = "random"


NEEDS_SAMPLES = frozenset({Importance.CONTRIBUTION})


@dataclass(frozen=True)
class Evidence:
    """What an importance knows beside the weights: `magnitudes`, mean |x| by (activation, axis), and the
    seed."""

    magnitudes: Mapping[tuple[str, int], np.ndarray] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Reader:
    """A layer that reads a group's channels: `columns (size, count)` of its input, `norms (C_in,)` of what it
    reads each column with."""

    place: Place
    norms: np.ndarray

    @property
    def columns(self) -> np.ndarray:
        return self.place.indices


ImportanceRule: TypeAlias = Callable[[Graph, ChannelGroup, Evidence], np.ndarray]


def _l1(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """sum |w| over everything of the channel that is cut."""
    total = np.zeros(group.size)
    for weights in _cut_weights(graph, group):
        total += np.abs(weights).sum(1)
    return total


def _l2(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """sqrt(sum w^2) over everything of the channel that is cut."""
    total = np.zeros(group.size)
    for weights in _cut_weights(graph, group):
        total += np.square(weights).sum(1)
    return np.sqrt(total)


def _path(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """sqrt(sum_j (s_j |W_j|)^2), s the length of the weights that made the channel: sqrt(|w|^2 + bias^2).

    A sum has the root of the sum of squares. A batch norm passes s on: the length that it divides away is
    what training has left of it, and tells more than the scale and offset it puts in its place.
    """
    sizes = _parameter_sizes(graph, group)
    total = np.zeros(group.size)
    for reader in readers(graph, group):
        outgoing = np.square(reader.norms[reader.columns]).sum(1)
        total += np.square(sizes[reader.place.tensor]) * outgoing
    return np.sqrt(total)


def _contribution(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """sqrt(sum_j (mean |x_j| |W_j|)^2): the channel's contribution to what the layers that read it give
    out."""
    total = np.zeros(group.size)
    for reader in readers(graph, group):
        share = evidence.magnitudes[reader.place.tensor, reader.place.axis] * reader.norms
        total += np.square(share[reader.columns]).sum(1)
    return np.sqrt(total)


def _random(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """Uniform in [0, 1), from the seed and the group's name, so that groups do not depend on each other."""
    return np.random.default_rng([evidence.seed, zlib.crc32(group.name.encode())]).random(group.size)


IMPORTANCES: dict[Importance, ImportanceRule] = {
    Importance.L1: _l1,
    Importance.L2: _l2,
    Importance.PATH: _path,
    Importance.CONTRIBUTION: _contribution,
    Importance.RANDOM: _random,
}


def _cut_weights(graph: Graph, group: ChannelGroup) -> Iterator[np.ndarray]:
    """What is cut with each channel, `(size, weights)` float64 a constant."""
    statistics = {name for node in graph.nodes if node.op is Op.BATCH_NORM for name in node.inputs[3:]}
    for cut in group.cuts:
        if cut.tensor not in statistics:
            yield _cut_rows(graph, cut)


def _cut_rows(graph: Graph, cut: Place) -> np.ndarray:
    rows: np.ndarray = np.moveaxis(graph.constants[cut.tensor], cut.axis, 0)[cut.indices]
    return rows.reshape(len(cut.indices), -1).astype(np.float64)


def readers(graph: Graph, group: ChannelGroup) -> list[Reader]:
    """The layers that read the group's channels and give out others.

    A convolution whose blocks are cut as a whole (depthwise too) passes channels on: what reads them then
    counts.
    """
    found = []
    for node in graph.nodes:
        if node.op not in (Op.CONV2D, Op.LINEAR) or not graph.is_constant(node.inputs[1]):
            continue
        channel_axis = 1 if node.op is Op.CONV2D else graph.types[node.inputs[0]].rank - 1
        place = group.places.get((node.inputs[0], channel_axis))
        if place is not None and (node.inputs[1], 1) in group.places:
            found.append(Reader(place, _column_norms(graph, node)))
    return found


def _column_norms(graph: Graph, node: Node) -> np.ndarray:
    """`(C_in,)`: L2 norm of the weights that read each input channel."""
    weight = graph.constants[node.inputs[1]].astype(np.float64)
    groups = int(node.attributes.get("groups", 1))  # type: ignore[arg-type]
    blocks = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    norms: np.ndarray = np.sqrt(np.square(blocks).sum(axis=(1, 3))).reshape(-1)
    return norms


def _parameter_sizes(graph: Graph, group: ChannelGroup) -> dict[str, np.ndarray]:
    """For each activation of the group, `(size,)`: how large each channel is by the parameters that made
    it."""
    sizes: dict[str, np.ndarray] = {}
    inside = {place.tensor for place in group.activations}
    for node in graph.nodes:
        if node.output not in inside:
            continue
        if node.op in WEIGHTED and (node.inputs[1], 0) in group.places:
            sizes[node.output] = _root_of_squares(graph, group, node.inputs[1:])
        else:
            parts = [np.square(sizes[name]) for name in node.inputs if name in sizes]
            sizes[node.output] = np.sqrt(np.sum(parts, axis=0)) if parts else np.zeros(group.size)
    return sizes


def _root_of_squares(graph: Graph, group: ChannelGroup, names: Sequence[str]) -> np.ndarray:
    """Per channel and index, so that a channel that is cut in many places is not larger for it."""
    total = np.zeros(group.size)
    for name in names:
        if (cut := group.places.get((name, 0))) is not None and graph.is_constant(name):
            total += np.square(_cut_rows(graph, cut)).sum(1) / cut.indices.shape[1]
    return np.sqrt(total)


def measure_magnitudes(
    graph: Graph, groups: Iterable[ChannelGroup], batches: Iterable[Sequence[np.ndarray]]
) -> dict[tuple[str, int], np.ndarray]:
    """Mean |x| along the channel axis of every activation that `contribution` asks for, in one streaming
    pass."""
    import torch

    from toolchain.engine.run import as_tensors, run, to_tensors

    sums = {(r.place.tensor, r.place.axis): np.zeros(0) for group in groups for r in readers(graph, group)}
    axes: dict[str, list[int]] = {}
    for tensor, axis in sums:
        axes.setdefault(tensor, []).append(axis)
    seen = dict.fromkeys(sums, 0)

    def hook(name: str, value: torch.Tensor) -> torch.Tensor:
        for axis in axes.get(name, ()):
            others = [a for a in range(value.dim()) if a != axis]
            total = value.abs().sum(others, dtype=torch.float64).numpy()
            sums[name, axis] = sums[name, axis] + total if sums[name, axis].size else total
            seen[name, axis] += value.numel() // value.shape[axis]
        return value

    constants = as_tensors(graph.constants)
    with torch.inference_mode():
        for batch in batches:
            run(graph, to_tensors(batch), constants=constants, hook=hook)
    return {key: total / max(seen[key], 1) for key, total in sums.items()}
