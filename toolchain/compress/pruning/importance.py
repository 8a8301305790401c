"""How much each channel of a group, and each single weight, matters: one row an importance, all in `IMPORTANCES`.

`w` runs over the weights, biases, batch-norm scales and offsets of a channel (batch-norm statistics are no weights);
`x_j` are the columns of the channel in the input of a layer that reads it, `W_j` the weights it is read with and
`w_oj` one of them; d_w = w dL/dw is what the loss (with labels) or the outputs change by (`evidence`).

                      channels                           single weights
    l1                sum |w|                            |w_oj|                Han et al., arXiv 1506.02626
    l2                sqrt(sum w^2)                      |w_oj|                Li et al., arXiv 1608.08710
    batch_norm        mean |gamma|                       -                     Liu et al., arXiv 1708.06519
    path              sqrt(sum_j (s_j |W_j|_2)^2)        -                     Neyshabur et al., arXiv 1506.02617
    contribution      sqrt(sum_j (mean |x_j| |W_j|)^2)   |w_oj| mean |x_j|     Luo et al., arXiv 1707.06342, in spirit
    activation_aware  sqrt(sum_j (rms x_j |W_j|)^2)      |w_oj| rms x_j        Sun et al. (Wanda), arXiv 2306.11695
    taylor            rms over batches of sum_w d_w      rms of d_w            Molchanov et al., arXiv 1906.10771
    fisher            sqrt(sum_w E d_w^2), by sample     sqrt(E d_w^2)         Theis et al., arXiv 1801.05787
    apoz              mean share of x_j that is not 0    -                     Hu et al., arXiv 1607.03250
    random            uniform in [0, 1)                  uniform in [0, 1)     control

`taylor` lets the weights of a channel make up for each other, `fisher` does not: it is the diagonal. A group without a
batch norm is weighed by `path` where `batch_norm` is asked for.

Scaling what makes a channel by a and what reads it by 1/a changes nothing that a network with ReLU computes, but it
changes `l1` and `l2`. `path` is invariant, as the norm of Path-SGD: it weighs a node by what it passes on, with s_j
the length of the weights that made the channel. It is therefore the default: `contribution` is it with the activations
measured, the better one where samples are at hand.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np

from toolchain.compress.channels.groups import ChannelGroup, Place
from toolchain.compress.pruning.choices import Importance
from toolchain.compress.pruning.evidence import Evidence, Moments
from toolchain.graph import RECURRENT, WEIGHTED, Graph, Node, Op


class Needs(StrEnum):
    """What an importance must have measured."""

    NOTHING = "nothing"
    MOMENTS = "moments"
    BATCH_CHANGES = "batch_changes"
    SAMPLE_CHANGES = "sample_changes"


@dataclass(frozen=True)
class Reader:
    """A layer that reads a group's channels: `columns (size, count)` of its input, `norms (C_in,)` of what it
    reads each column with."""

    place: Place
    norms: np.ndarray

    @property
    def columns(self) -> np.ndarray:
        return self.place.indices


ChannelRule: TypeAlias = Callable[[Graph, ChannelGroup, Evidence], np.ndarray]
"""`(size,)`: how much each channel matters."""

WeightRule: TypeAlias = Callable[[Graph, str, Evidence], np.ndarray]
"""Of the weight's shape: how much each of its elements matters."""


@dataclass(frozen=True)
class Rule:
    """One row of the table; `weights` is None where single weights have no such importance."""

    needs: Needs
    channels: ChannelRule
    weights: WeightRule | None = None


# ---- channels ----------------------------------------------------------------------------------------------


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


def _batch_norm(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """mean |gamma| over the batch norms that the channel passes; `path` where there is none."""
    scales = [node.inputs[1] for node in graph.nodes if node.op is Op.BATCH_NORM]
    found = [np.abs(_cut_rows(graph, cut)).mean(1) for cut in group.cuts if cut.tensor in scales]
    return np.asarray(np.mean(found, axis=0)) if found else _path(graph, group, evidence)


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
    """sqrt(sum_j (mean |x_j| |W_j|)^2): the channel's contribution to what the layers that read it give out."""
    return _read_size(graph, group, evidence, lambda moments: moments.magnitude)


def _activation_aware(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """sqrt(sum_j (rms x_j |W_j|)^2): Wanda's score of the weights that read the channel, summed in squares."""
    return _read_size(graph, group, evidence, lambda moments: np.sqrt(moments.square))


def _read_size(
    graph: Graph, group: ChannelGroup, evidence: Evidence, size: Callable[[Moments], np.ndarray]
) -> np.ndarray:
    total = np.zeros(group.size)
    for reader in readers(graph, group):
        share = size(evidence.moments[reader.place.tensor, reader.place.axis]) * reader.norms
        total += np.square(share[reader.columns]).sum(1)
    return np.sqrt(total)


def _taylor(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """Root mean square over batches of sum_w d_w: what is lost to first order where the channel goes as a whole."""
    return np.asarray(np.sqrt(evidence.channels[group.name]))


def _fisher(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """sqrt(sum_w E d_w^2): the diagonal of the Fisher matrix, weighed with w^2."""
    total = np.zeros(group.size)
    for cut in group.cuts:
        if cut.tensor in evidence.weights:
            rows = np.moveaxis(evidence.weights[cut.tensor], cut.axis, 0)
            total += rows.reshape(len(rows), -1).sum(1)[cut.indices].sum(1)
    return np.sqrt(total)


def _apoz(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """1 - the average percentage of zeros among the channel's values where layers read them."""
    shares = [
        evidence.moments[reader.place.tensor, reader.place.axis].active[reader.columns].mean(1)
        for reader in readers(graph, group)
    ]
    return np.asarray(np.mean(shares, axis=0)) if shares else np.zeros(group.size)


def _random(graph: Graph, group: ChannelGroup, evidence: Evidence) -> np.ndarray:
    """Uniform in [0, 1), from the seed and the group's name, so that groups do not depend on each other."""
    return _drawn(group.name, evidence.seed, (group.size,))


# ---- single weights ----------------------------------------------------------------------------------------


def _weight_size(graph: Graph, name: str, evidence: Evidence) -> np.ndarray:
    """|w|."""
    return np.asarray(np.abs(graph.constants[name].astype(np.float64)))


def _weight_contribution(graph: Graph, name: str, evidence: Evidence) -> np.ndarray:
    """|w_oj| mean |x_j|."""
    return np.asarray(_weight_size(graph, name, evidence) * _per_weight(graph, name, evidence, lambda m: m.magnitude))


def _weight_activation_aware(graph: Graph, name: str, evidence: Evidence) -> np.ndarray:
    """|w_oj| rms x_j."""
    met = _per_weight(graph, name, evidence, lambda moments: np.sqrt(moments.square))
    return np.asarray(_weight_size(graph, name, evidence) * met)


def _weight_change(graph: Graph, name: str, evidence: Evidence) -> np.ndarray:
    """Root mean square over passes of d_w."""
    return np.asarray(np.sqrt(evidence.weights.get(name, np.zeros(graph.types[name].shape))))


def _weight_random(graph: Graph, name: str, evidence: Evidence) -> np.ndarray:
    """Uniform in [0, 1), from the seed and the weight's name."""
    return _drawn(name, evidence.seed, graph.types[name].shape)


def _per_weight(graph: Graph, name: str, evidence: Evidence, size: Callable[[Moments], np.ndarray]) -> np.ndarray:
    """Size of what each weight meets, in the weight's shape or one that spreads to it."""
    shape = graph.types[name].shape
    key = input_of_weight(graph, name)
    if key is None:
        return np.ones(shape)
    sizes = size(evidence.moments[key])
    outputs, fan_in = shape[:2]
    blocks = len(sizes) // fan_in
    rows = np.repeat(sizes.reshape(blocks, fan_in), outputs // blocks, axis=0)
    return rows.reshape(outputs, fan_in, *[1] * (len(shape) - 2))


IMPORTANCES: dict[Importance, Rule] = {
    Importance.L1: Rule(Needs.NOTHING, _l1, _weight_size),
    Importance.L2: Rule(Needs.NOTHING, _l2, _weight_size),
    Importance.BATCH_NORM: Rule(Needs.NOTHING, _batch_norm),
    Importance.PATH: Rule(Needs.NOTHING, _path),
    Importance.CONTRIBUTION: Rule(Needs.MOMENTS, _contribution, _weight_contribution),
    Importance.ACTIVATION_AWARE: Rule(Needs.MOMENTS, _activation_aware, _weight_activation_aware),
    Importance.TAYLOR: Rule(Needs.BATCH_CHANGES, _taylor, _weight_change),
    Importance.FISHER: Rule(Needs.SAMPLE_CHANGES, _fisher, _weight_change),
    Importance.APOZ: Rule(Needs.MOMENTS, _apoz),
    Importance.RANDOM: Rule(Needs.NOTHING, _random, _weight_random),
}

COMMENSURABLE = frozenset({Importance.TAYLOR, Importance.FISHER})
"""Importances in the unit of the loss or the outputs, which can be compared between groups as they are."""


# ---- where channels lie ------------------------------------------------------------------------------------


def _drawn(name: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([seed, zlib.crc32(name.encode())]).random(shape)


def _cut_weights(graph: Graph, group: ChannelGroup) -> Iterator[np.ndarray]:
    """What is cut with each channel, `(size, weights)` float64 a constant."""
    statistics = {name for node in graph.nodes if node.op is Op.BATCH_NORM for name in node.inputs[3:]}
    for cut in group.cuts:
        if cut.tensor not in statistics:
            yield _cut_rows(graph, cut)


def _cut_rows(graph: Graph, cut: Place) -> np.ndarray:
    rows: np.ndarray = np.moveaxis(graph.constants[cut.tensor], cut.axis, 0)[cut.indices]
    return rows.reshape(len(cut.indices), -1).astype(np.float64)


_READING = frozenset({Op.CONV2D, Op.CONV_TRANSPOSE2D, Op.LINEAR}) | RECURRENT


def readers(graph: Graph, group: ChannelGroup) -> list[Reader]:
    """The layers that read the group's channels and give out others.

    A convolution whose blocks are cut as a whole (depthwise too) passes channels on: what reads them then
    counts.
    """
    found = []
    for node in graph.nodes:
        if node.op not in _READING or not graph.is_constant(node.inputs[1]):
            continue
        place = group.places.get((node.inputs[0], _channel_axis(graph, node)))
        if place is not None and (node.inputs[1], 1) in group.places:
            found.append(Reader(place, _column_norms(graph, node)))
    return found


def _channel_axis(graph: Graph, node: Node) -> int:
    """The axis of a layer's input that its weights sum over."""
    of_images = node.op in (Op.CONV2D, Op.CONV_TRANSPOSE2D, Op.DEPTHWISE_CONV2D)
    return 1 if of_images else graph.types[node.inputs[0]].rank - 1


def input_of_weight(graph: Graph, name: str) -> tuple[str, int] | None:
    """The (activation, axis) that a weight sums over; None where that is no tensor of the graph (the hidden state of a
    node that gives its cell state)."""
    for node in graph.nodes:
        if node.op in WEIGHTED | RECURRENT and name == node.inputs[1] and node.inputs[0] not in graph.constants:
            return node.inputs[0], _channel_axis(graph, node)
        if node.op in RECURRENT and name == node.inputs[2] and node.attributes.get("gives") != "cell":
            return node.output, graph.types[node.output].rank - 1
    return None


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
        if node.op in WEIGHTED | RECURRENT and (node.inputs[1], 0) in group.places:
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
