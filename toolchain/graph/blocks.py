"""The order of channels that become pixels (depth to space) or were pixels (space to depth).

torch numbers them `(c, i, j)`, channels first; the operators of TFLite `(i, j, c)`. Where a convolution alone makes the
channels, or alone reads them, its weights are reordered once, `W'[(i, j, c)] = W[(c, i, j)]`, and no file has to move
anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolchain.graph.graph import Graph
from toolchain.graph.node import Node
from toolchain.graph.ops import Op

ELEMENTWISE = frozenset(
    {Op.RELU, Op.RELU6, Op.LEAKY_RELU, Op.ELU, Op.GELU, Op.SIGMOID, Op.TANH, Op.HARDSWISH, Op.SOFTPLUS, Op.MISH}
    | {Op.CLAMP, Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.ABS, Op.NEG, Op.SIN, Op.COS, Op.FLOOR, Op.CEIL, Op.ROUND}
    | {Op.SIGN, Op.ERF}
)
"""Functions of one tensor, element by element, with no constants of their own."""

_FROM_CHANNELS = frozenset({Op.CONV2D, Op.CONV_TRANSPOSE2D})


@dataclass(frozen=True)
class Reordering:
    """Index `order[k]` of a constant along `axis` goes to k."""

    axis: int
    order: np.ndarray

    def apply(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array.take(self.order, self.axis))


def pixel_order(channels: int, block: int) -> np.ndarray:
    """Where the channels `(i, j, c)` stand among `(c, i, j)`; `channels` counts those of the image with fewer."""
    return np.arange(channels * block**2).reshape(channels, block**2).T.reshape(-1)


def order_blocks(graph: Graph) -> Graph:
    """Every depth to space and space to depth that can be with its channels last."""
    constants, replaced = dict(graph.constants), {}
    for node in graph.nodes:
        found = _reorderings(graph, node) if node.attributes.get("channels_first") else None
        if found is not None:
            constants |= {name: reordering.apply(constants[name]) for name, reordering in found.items()}
            replaced[node.output] = node.with_attributes(channels_first=False)
    return graph.with_nodes([replaced.get(node.output, node) for node in graph.nodes], constants) if replaced else graph


def reordered_constants(before: Graph, after: Graph) -> dict[str, Reordering]:
    """What folding `before` into `after` has done to the order of constants."""
    found: dict[str, Reordering] = {}
    for node in after.nodes:
        original = before.producers.get(node.output)
        changed = original is not None and original.op is node.op and original.attributes.get("channels_first")
        if changed and not node.attributes["channels_first"]:
            found |= _reorderings(after, node) or {}
    return found


def _reorderings(graph: Graph, node: Node) -> Mapping[str, Reordering] | None:
    """How constants must be reordered for `node` to have its channels last; None where something else would notice."""
    packed = node.inputs[0] if node.op is Op.DEPTH_TO_SPACE else node.output
    channels = graph.types[packed].shape[1] // node["block"] ** 2
    if channels == 1:
        return {}
    order = pixel_order(channels, node["block"])
    if node.op is Op.DEPTH_TO_SPACE:
        maker = _maker(graph, node)
        return None if maker is None else {name: Reordering(0, order) for name in maker.inputs[1:]}
    reader = graph.only_consumer(node.output)
    if reader is None or reader.op is not Op.CONV2D or reader["groups"] != 1 or not _owns_weights(graph, reader, 2):
        return None
    return {reader.inputs[1]: Reordering(1, order)}


def _maker(graph: Graph, node: Node) -> Node | None:
    """The convolution whose result, through functions of single elements, `node` alone reads."""
    reader = node
    while (maker := graph.producers.get(reader.inputs[0])) is not None and graph.only_consumer(maker.output) is reader:
        if maker.op in _FROM_CHANNELS:
            return maker if maker["groups"] == 1 and _owns_weights(graph, maker, 3) else None
        if maker.op not in ELEMENTWISE:
            return None
        reader = maker
    return None


def _owns_weights(graph: Graph, node: Node, count: int) -> bool:
    """Whether the first of a node's constants are read by it alone."""
    return all(graph.is_constant(name) and len(graph.consumers[name]) == 1 for name in node.inputs[1:count])
