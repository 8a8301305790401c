"""Whether a graph treats the samples of a batch apart, so that it may be run on more than one at a time.

Axis 0 is followed through the nodes: an op that sums over it, moves it, joins it or cuts it mixes samples.
"""

from __future__ import annotations

from collections.abc import Callable

from toolchain.graph.graph import Graph
from toolchain.graph.node import Node
from toolchain.graph.ops import Op


def mixes_samples(graph: Graph) -> Node | None:
    """The first node that mixes the samples of a batch, or None."""
    for node in graph.nodes:
        read = [name for name in node.inputs if not graph.is_constant(name)]
        ranks = {graph.types[name].rank for name in read}
        joined = node.op in _BROADCASTING and ranks != {graph.types[node.output].rank}
        if joined or 0 in ranks or _MIXES.get(node.op, _never)(graph, node):
            return node
    return None


def _never(graph: Graph, node: Node) -> bool:
    return False


def _reshapes_axis_0(graph: Graph, node: Node) -> bool:
    before = graph.types[node.inputs[0]].shape
    return bool(before[:1] != node["shape"][:1])


_BROADCASTING = frozenset({Op.ADD, Op.SUB, Op.MUL})

_MIXES: dict[Op, Callable[[Graph, Node], bool]] = {
    Op.SOFTMAX: lambda graph, node: node["axis"] == 0,
    Op.MEAN: lambda graph, node: 0 in node["axes"],
    Op.RESHAPE: _reshapes_axis_0,
    Op.PERMUTE: lambda graph, node: node["axes"][0] != 0,
    Op.CONCAT: lambda graph, node: node["axis"] == 0,
    Op.PAD: lambda graph, node: bool(node["amounts"][0] or node["amounts"][len(node["amounts"]) // 2]),
    Op.SLICE: lambda graph, node: 0 in node["axes"],
    Op.LINEAR: lambda graph, node: graph.types[node.inputs[0]].rank == 1,
}
"""Ops that mix samples, and when; all others leave axis 0 as it is."""
