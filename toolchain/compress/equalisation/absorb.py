"""High-bias absorption: what is always positive behind a ReLU moves into the bias of the next layer (Nagel et al.,
arXiv 1906.04721, section 4.1.3).

For x > c, relu(x) = relu(x - c) + c, so that

    b1' = b1 - c,    b2' = b2 + W2 c,

and the range of the activation between shrinks by c. c is the least value that a channel took on the samples; or
max(0, beta - 3 gamma), where the deviation gamma and mean beta of a batch norm are given, which holds for 99.9 % of a
normal distribution. A value below c changes the result: exact on the samples, not beyond. A layer that pads what it
reads with zeros cannot take a shift in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from toolchain.compress.equalisation.scale_factors import ChannelRanges
from toolchain.compress.equalisation.scale_flow import compact
from toolchain.compress.tables import format_table
from toolchain.graph import WEIGHTED, Graph, Node, Op, Structure
from toolchain.graph.graph import unique_name
from toolchain.quantization.statistics import channel_axis

Moments: TypeAlias = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Mean and deviation `(C,)` of a layer's result before its activation: beta and gamma of the batch norm folded into
it."""

_CEILING = 6.0
_SHARE = 0.02  # of the tensor's range: a smaller shift gains nothing


@dataclass(frozen=True)
class AbsorbedTensor:
    """One activation: how many of `channels` were `shifted`, by at most `largest`, and its range before and after."""

    name: str
    channels: int
    shifted: int
    largest: float
    range_before: float
    range_after: float

    def row(self) -> tuple[str, ...]:
        numbers = (f"{number:.3g}" for number in (self.largest, self.range_before, self.range_after))
        return (self.name, f"{self.shifted}/{self.channels}", *numbers, "")


@dataclass(frozen=True)
class Absorption:
    """What `absorb_high_biases` did; `kept` holds the activations that could shift, but whose readers cannot take it
    in, with the reason."""

    tensors: tuple[AbsorbedTensor, ...]
    kept: Mapping[str, str]

    def __str__(self) -> str:
        rows = [tensor.row() for tensor in self.tensors]
        header = ("activation", "channels shifted", "by at most", "range", "after", "")
        lines = [format_table(header, rows)] if rows else ["no channel was shifted"]
        return "\n".join([*lines, *(f"{name} is not shifted: {why}" for name, why in self.kept.items())])


def absorb_high_biases(
    graph: Graph,
    channel_ranges: ChannelRanges,
    *,
    moments: Moments | None = None,
    structure: Structure | None = None,
    headroom: float = 2.0,
) -> tuple[Graph, Absorption]:
    """The folded `graph` with high biases absorbed, and what was done.

    `channel_ranges` are least and largest value `(C,)` of each activation; `moments`, where given for a layer's result,
    decide in their place. Biases with a mask or codebook in `structure` stay. A channel behind a ReLU6 is left alone
    unless `headroom` times its largest value is below 6.
    """
    done: list[AbsorbedTensor] = []
    kept: dict[str, str] = {}
    fixed = {*(structure.masks if structure else ()), *(structure.codebooks if structure else ())}
    result = graph
    for node in graph.nodes:
        maker = _maker(result, node, fixed)
        if maker is None or node.output not in channel_ranges:
            continue
        shift = _shift(result, maker, node, channel_ranges, moments or {}, headroom)
        _, high = channel_ranges[node.output]
        if not np.any(shift > _SHARE * float(high.max())):
            continue
        try:
            deltas = _deltas(result, node.output, _along(result, node.output, shift), fixed)
        except _StaysError as stays:
            kept[node.output] = str(stays)
            continue
        result = _with_biases(result, [(maker.output, -shift), *deltas])
        shifted = int(np.count_nonzero(shift))
        after = float((high - shift).max())
        done.append(AbsorbedTensor(node.output, len(shift), shifted, float(shift.max()), float(high.max()), after))
    return result, Absorption(tuple(done), kept)


class _StaysError(Exception):
    """Why a shift cannot be taken in."""


def _maker(graph: Graph, node: Node, fixed: set[str]) -> Node | None:
    """The layer whose result `node` hands through a ReLU; `node` itself where it is fused."""
    if node.op in WEIGHTED and node.attributes["activation"] != "none":
        maker = graph.producers[node.output]
    elif node.op in (Op.RELU, Op.RELU6):
        found = graph.producers.get(node.inputs[0])
        if found is None or found.op not in WEIGHTED or graph.only_consumer(found.output) is None:
            return None
        maker = found
        if maker.attributes["activation"] != "none":
            return None
    else:
        return None
    owned = len(maker.inputs) == 3 and graph.is_constant(maker.inputs[2]) and maker.inputs[2] not in fixed
    return maker if owned else None


def _shift(
    graph: Graph, maker: Node, node: Node, ranges: ChannelRanges, moments: Moments, headroom: float
) -> np.ndarray:
    low, high = (np.asarray(bound, np.float64) for bound in ranges[node.output])
    features = graph.types[maker.inputs[1]].shape[0]
    if len(low) != features or channel_axis(graph, node.output) != _feature_axis(graph, maker):
        return np.zeros(features)
    if maker.output in moments:
        mean, deviation = moments[maker.output]
        shift = np.maximum(0.0, mean - 3 * np.abs(deviation)).astype(np.float64)
    else:
        shift = np.maximum(0.0, low)
    if "relu6" in (node.op, node.attributes.get("activation")):
        shift = np.where(headroom * high < _CEILING, shift, 0.0)
    return np.asarray(shift)


def _feature_axis(graph: Graph, node: Node) -> int:
    return graph.types[node.output].rank - 1 if node.op is Op.LINEAR else 1


def _along(graph: Graph, name: str, shift: np.ndarray) -> np.ndarray:
    shape = [1] * graph.types[name].rank
    shape[channel_axis(graph, name)] = len(shift)
    return shift.reshape(shape)


Delta: TypeAlias = tuple[str, np.ndarray]
"""The output of a layer, and what is added to its bias `(C_out,)`."""


def _deltas(graph: Graph, name: str, shift: np.ndarray, fixed: set[str]) -> list[Delta]:
    """What every layer behind `name` must add to its bias when `name` is lowered by `shift`, an array that broadcasts
    to it. Raises _StaysError where one cannot."""
    if name in graph.outputs:
        raise _StaysError(f"{name} is an output of the graph")
    found: list[Delta] = []
    for reader in graph.consumers.get(name, ()):
        if reader.op in WEIGHTED:
            found.append((reader.output, _taken_in(graph, reader, name, shift, fixed)))
        elif reader.op in _MOVES:
            found += _deltas(graph, reader.output, _MOVES[reader.op](graph, reader, name, shift), fixed)
        else:
            raise _StaysError(f"{reader.name} ({reader.op}) reads it")
    return found


def _taken_in(graph: Graph, node: Node, name: str, shift: np.ndarray, fixed: set[str]) -> np.ndarray:
    constants = all(graph.is_constant(other) and other not in fixed for other in node.inputs[2:])
    if node.inputs[0] != name or not graph.is_constant(node.inputs[1]) or not constants:
        raise _StaysError(f"the weights or the bias of {node.name} are not its own")
    if node.op is Op.CONV_TRANSPOSE2D or any(_padding(node)):
        raise _StaysError(f"{node.name} pads it with zeros")
    axis = graph.types[name].rank - 1 if node.op is Op.LINEAR else 1
    if any(size > 1 for a, size in enumerate(shift.shape) if a != axis):
        raise _StaysError(f"{node.name} reads shifts that differ along other axes")
    channels = np.broadcast_to(shift.reshape(-1), graph.types[name].shape[axis])
    weight = graph.constants[node.inputs[1]].astype(np.float64)
    summed = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    blocks = channels.reshape(-1, summed.shape[1])
    return np.asarray((summed * np.repeat(blocks, len(summed) // len(blocks), axis=0)).sum(axis=1))


def _padding(node: Node) -> tuple[int, ...]:
    return tuple(node["padding"]) if "padding" in node.attributes else ()


def _with_biases(graph: Graph, deltas: list[Delta]) -> Graph:
    """Each layer with its delta added to a bias of its own."""
    total: dict[str, np.ndarray] = {}
    for output, delta in deltas:
        total[output] = total[output] + delta if output in total else delta
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        if node.output in total:
            old = constants[node.inputs[2]].astype(np.float64) if len(node.inputs) > 2 else 0.0
            name = node.inputs[2] if len(node.inputs) > 2 else unique_name(f"{node.inputs[1]}.bias", constants)
            if len(graph.consumers.get(name, ())) > 1:
                name = unique_name(name, constants)
            constants[name] = np.asarray(old + total[node.output], np.float32)
            nodes.append(replace(node, inputs=(*node.inputs[:2], name)))
        else:
            nodes.append(node)
    return graph.with_nodes(nodes, constants)


Move: TypeAlias = Callable[[Graph, Node, str, np.ndarray], np.ndarray]
"""From the shift of an op's input to that of its result: ops with `op(x + c) = op(x) + move(c)`."""


def _same(graph: Graph, node: Node, name: str, shift: np.ndarray) -> np.ndarray:
    return shift


def _window(graph: Graph, node: Node, name: str, shift: np.ndarray) -> np.ndarray:
    if shift.shape[2] > 1 or shift.shape[3] > 1:
        raise _StaysError(f"{node.name} moves a window over shifts that differ")
    return shift


def _reduced(graph: Graph, node: Node, name: str, shift: np.ndarray) -> np.ndarray:
    if any(shift.shape[axis] > 1 for axis in node["axes"]):
        raise _StaysError(f"{node.name} reduces shifts that differ")
    return shift if node["keepdim"] else shift.squeeze(node["axes"])


def _reshaped(graph: Graph, node: Node, name: str, shift: np.ndarray) -> np.ndarray:
    return compact(np.broadcast_to(shift, graph.types[name].shape).reshape(node["shape"]))


def _permuted(graph: Graph, node: Node, name: str, shift: np.ndarray) -> np.ndarray:
    return shift.transpose(node["axes"])


def _joined(graph: Graph, node: Node, name: str, shift: np.ndarray) -> np.ndarray:
    """The other parts of a concat are not shifted."""
    axis = node["axis"]
    parts = []
    for other in node.inputs:
        shape = list(shift.shape)
        shape[axis] = graph.types[other].shape[axis]
        parts.append(np.broadcast_to(shift, shape) if other == name else np.zeros(shape))
    return np.concatenate(parts, axis)


_MOVES: Mapping[Op, Move] = {
    Op.REQUANTIZE: _same,
    **dict.fromkeys((Op.MAX_POOL2D, Op.AVG_POOL2D, Op.RESIZE), _window),
    **dict.fromkeys((Op.MEAN, Op.REDUCE_MAX, Op.REDUCE_MIN), _reduced),
    Op.RESHAPE: _reshaped,
    Op.PERMUTE: _permuted,
    Op.CONCAT: _joined,
}
