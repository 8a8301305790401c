"""Parts of a graph that learn together: layers with the activation behind them, or blocks between cut points.

A cut is a place that a single activation crosses. Between two cuts without one in between lies a residual block, or one
layer of a chain; short neighbours are joined until a block holds `WEIGHTS` weighted nodes, longer ones, in graphs that
never narrow to one tensor, are cut after as many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolchain.graph import WEIGHTED, Graph, Node, Op
from toolchain.graph.blocks import ELEMENTWISE

WEIGHTS, MOST_WEIGHTS = 3, 6

_ACTIVATIONS = ELEMENTWISE | {Op.PRELU, Op.REQUANTIZE}


@dataclass(frozen=True)
class Segment:
    """Nodes in evaluation order, the activations they read from outside and those of theirs that others read."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def weighted(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.op in WEIGHTED)


def layer_segments(graph: Graph) -> tuple[Segment, ...]:
    """One segment a weighted node with the functions of single elements that alone follow it; the nodes between as
    segments without weights."""
    parts: list[list[Node]] = []
    for node in graph.nodes:
        before = parts[-1][-1] if parts else None
        follows = before is not None and node.op in _ACTIVATIONS and graph.only_consumer(before.output) is node
        if follows:
            parts[-1].append(node)
        else:
            parts.append([node])
    return tuple(_segment(graph, part) for part in parts)


def block_segments(graph: Graph) -> tuple[Segment, ...]:
    """Segments between cuts, joined or cut to a bounded number of weighted nodes; together they are all nodes."""
    joined: list[list[Node]] = []
    for region in _regions(graph):
        count = _weights(region)
        if joined and _weights(joined[-1]) + count <= WEIGHTS and not (count and _weights(joined[-1]) >= WEIGHTS):
            joined[-1] = [*joined[-1], *region]
        else:
            joined.append(region)
    return tuple(_segment(graph, part) for region in joined for part in _cut_long(region))


def _regions(graph: Graph) -> list[list[Node]]:
    """The nodes between one cut and the next."""
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    last_use |= dict.fromkeys(graph.outputs, len(graph.nodes))
    live = {name for name in graph.input_names if last_use.get(name, -1) >= 0}
    regions: list[list[Node]] = []
    region: list[Node] = []
    for index, node in enumerate(graph.nodes):
        region.append(node)
        live |= {name for name in node.outputs if name in last_use}
        live -= {name for name in live if last_use[name] <= index}
        if len(live) <= 1:
            regions.append(region)
            region = []
    return [*regions, region] if region else regions


def _cut_long(region: Sequence[Node]) -> list[list[Node]]:
    if _weights(region) <= MOST_WEIGHTS:
        return [list(region)]
    parts: list[list[Node]] = [[]]
    for node in region:
        if node.op in WEIGHTED and _weights(parts[-1]) >= WEIGHTS:
            parts.append([])
        parts[-1].append(node)
    return parts


def _weights(nodes: Iterable[Node]) -> int:
    return sum(node.op in WEIGHTED for node in nodes)


def _segment(graph: Graph, nodes: Sequence[Node]) -> Segment:
    made = {name for node in nodes for name in node.outputs}
    read = dict.fromkeys(name for node in nodes for name in node.inputs)
    own = {node.output for node in nodes}
    outputs = tuple(
        name
        for name in made
        if name in graph.outputs or any(reader.output not in own for reader in graph.consumers.get(name, ()))
    )
    inputs = tuple(name for name in read if name not in made and not graph.is_constant(name))
    return Segment(tuple(nodes), inputs, tuple(sorted(outputs)))
