"""Whether a graph treats the samples of a batch apart, so that it may be run on more than one at a time.

Axis 0 is followed through the nodes: an op that sums over it, moves it, joins it or cuts it mixes samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from toolchain.errors import UnsupportedError
from toolchain.graph.graph import Graph
from toolchain.graph.node import Node, unsupported
from toolchain.graph.ops import RECURRENT, Op
from toolchain.graph.types import TensorType, Value

BATCHES = (2, 3)
"""Two batches that tell apart what follows the batch; of one sample, axes of size 1 hide where the batch goes."""


def mixes_samples(graph: Graph) -> Node | None:
    """The first node that mixes the samples of a batch, or None."""
    for node in graph.nodes:
        read = [name for name in node.inputs if not graph.is_constant(name)]
        ranks = {graph.types[name].rank for name in read}
        joined = node.op in _BROADCASTING and ranks != {graph.types[node.output].rank}
        if joined or 0 in ranks or _MIXES.get(node.op, _never)(graph, node):
            return node
    return None


def with_batch(graph: Graph, batch: int) -> Graph:
    """The same graph for `batch` samples, axis 0 of every in- and output.

    Raises UnsupportedError that names the node, or the input, for which the batch cannot be chosen.
    """
    sizes = {value.name: value.type.shape[:1] for value in graph.inputs}
    if () in sizes.values() or len(set(sizes.values())) != 1:
        found = ", ".join(f"{value.name}{list(value.type.shape)}" for value in graph.inputs)
        raise UnsupportedError(
            f"the batch of this model cannot be chosen: its inputs are {found}, of which axis 0 is not one batch",
            hint="leave out dynamic_batch, or give every input the batch as its first axis",
        )
    if (mixing := mixes_samples(graph)) is not None:
        raise unsupported(mixing, "mixes the samples of a batch, so that the batch cannot be chosen")
    inputs = tuple(Value(v.name, TensorType(v.type.dtype, (batch, *v.type.shape[1:]))) for v in graph.inputs)
    resized = replace(graph, inputs=inputs, nodes=tuple(_with_batch(node, batch) for node in graph.nodes))
    for node in resized.nodes:
        if resized.types[node.output].shape[:1] != (batch,):
            raise unsupported(node, "gives a result that does not follow the batch")
    return resized


def _with_batch(node: Node, batch: int) -> Node:
    if node.op not in (Op.RESHAPE, Op.EXPAND):
        return node
    return replace(node, attributes={**node.attributes, "shape": (batch, *node["shape"][1:])})


def _never(graph: Graph, node: Node) -> bool:
    return False


def _reshapes_axis_0(graph: Graph, node: Node) -> bool:
    before = graph.types[node.inputs[0]].shape
    return bool(before[:1] != node["shape"][:1])


def _axis_is_0(graph: Graph, node: Node) -> bool:
    return bool(node["axis"] == 0)


def _axes_have_0(graph: Graph, node: Node) -> bool:
    return 0 in node["axes"]


_BROADCASTING = frozenset(
    {Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.POW, Op.MINIMUM, Op.MAXIMUM, Op.EQUAL, Op.NOT_EQUAL, Op.LESS, Op.LESS_EQUAL}
    | {Op.GREATER, Op.GREATER_EQUAL, Op.LOGICAL_AND, Op.LOGICAL_OR, Op.WHERE}
)


def _gathers(graph: Graph, node: Node) -> bool:
    """The indices of a constant table bring the batch; what is gathered from an activation keeps its own."""
    table, indices = (graph.is_constant(name) for name in node.inputs)
    if table:
        return bool(node["axis"] != 0)
    return not indices or bool(node["axis"] == 0)


def _multiplies(graph: Graph, node: Node) -> bool:
    """Matrices, or a batch that only one of the operands has."""
    batches = [graph.types[name].shape[:1] for name in node.inputs if not graph.is_constant(name)]
    return graph.types[node.output].rank == 2 or batches != [graph.types[node.output].shape[:1]] * len(batches)


def _starts_apart(graph: Graph, node: Node) -> bool:
    """Samples that start from constant states of their own, or all from one that is computed."""
    batch = graph.types[node.inputs[0]].shape[0]
    rows = [(graph.types[name].shape[0], graph.is_constant(name)) for name in node.inputs[5:]]
    return any(count > 1 if is_constant else count != batch for count, is_constant in rows)


_MIXES: dict[Op, Callable[[Graph, Node], bool]] = {
    **dict.fromkeys((Op.SOFTMAX, Op.LOG_SOFTMAX, Op.CONCAT, Op.ARGMAX, Op.ARGMIN, Op.CUMSUM), _axis_is_0),
    **dict.fromkeys((Op.TOPK_VALUES, Op.TOPK_INDICES, Op.GATHER_ELEMENTS), _axis_is_0),
    **dict.fromkeys((Op.MEAN, Op.SUM, Op.REDUCE_MAX, Op.REDUCE_MIN, Op.SLICE), _axes_have_0),
    **dict.fromkeys((Op.LAYER_NORM, Op.RMS_NORM), _axes_have_0),
    Op.RESHAPE: _reshapes_axis_0,
    Op.EXPAND: _reshapes_axis_0,
    Op.PERMUTE: lambda graph, node: node["axes"][0] != 0,
    Op.PAD: lambda graph, node: bool(node["amounts"][0] or node["amounts"][len(node["amounts"]) // 2]),
    Op.GATHER: _gathers,
    Op.MATMUL: _multiplies,
    **dict.fromkeys(RECURRENT, _starts_apart),
    Op.LINEAR: lambda graph, node: graph.types[node.inputs[0]].rank == 1,
}
"""Ops that mix samples, and when; all others leave axis 0 as it is."""
