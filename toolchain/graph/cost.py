"""Cost facet: multiply-accumulates of an op, bytes of parameters, peak bytes of activations.

Peak activation memory is the largest sum of live tensors over the nodes in their order, a tensor being live from the
node that defines it (graph inputs: from the start) to the last that reads it (graph outputs: to the end); reshapes
share their input's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from toolchain.graph.graph import Graph
from toolchain.graph.node import Node
from toolchain.graph.ops import Op
from toolchain.graph.types import TensorType

CostRule: TypeAlias = Callable[[Node, list[TensorType], TensorType], int]


@dataclass(frozen=True)
class NodeCost:
    """What one node costs at batch size 1 or whatever its graph was traced with."""

    name: str
    op: Op
    macs: int
    parameters: int


def node_costs(graph: Graph) -> tuple[NodeCost, ...]:
    """Cost of every node, in order. A parameter read by two nodes is counted at the first."""
    seen: set[str] = set()
    costs = []
    for node in graph.nodes:
        given = [graph.types[name] for name in node.inputs]
        constants = [name for name in node.inputs if name in graph.constants and name not in seen]
        seen.update(constants)
        macs = COST_RULES[node.op](node, given, graph.types[node.output])
        costs.append(NodeCost(node.name, node.op, macs, sum(graph.constants[name].size for name in constants)))
    return tuple(costs)


def total_macs(graph: Graph) -> int:
    """Multiply-accumulates of the whole graph."""
    return sum(cost.macs for cost in node_costs(graph))


def peak_activation_bytes(graph: Graph, element_bytes: int | None = None) -> int:
    """Peak of live activation bytes; `element_bytes` overrides the size of an element (1 for int8)."""

    def size(name: str) -> int:
        kind = graph.types[name]
        return kind.elements * (element_bytes or kind.dtype.bytes)

    owner = {name: name for name in graph.activations}
    last_use = dict.fromkeys(graph.activations, -1)
    for index, node in enumerate(graph.nodes):
        if node.op is Op.RESHAPE and node.inputs[0] in owner:
            owner[node.output] = owner[node.inputs[0]]
        for name in (*node.inputs, *node.outputs):
            if name in owner:
                last_use[owner[name]] = index
    for name in graph.outputs:
        last_use[owner.get(name, name)] = len(graph.nodes)
    live = {name: size(name) for name in graph.input_names}
    peak = sum(live.values())
    for index, node in enumerate(graph.nodes):
        live |= {name: size(name) for name in node.outputs if owner[name] == name}
        peak = max(peak, sum(live.values()))
        live = {name: bytes_ for name, bytes_ in live.items() if last_use[name] > index}
    return peak


def _convolution(node: Node, given: list[TensorType], result: TensorType) -> int:
    return result.elements * prod(given[1].shape[1:])


def _linear(node: Node, given: list[TensorType], result: TensorType) -> int:
    return result.elements * given[1].shape[1]


def _per_result(node: Node, given: list[TensorType], result: TensorType) -> int:
    return result.elements


def _per_input(node: Node, given: list[TensorType], result: TensorType) -> int:
    return given[0].elements


def _no_arithmetic(node: Node, given: list[TensorType], result: TensorType) -> int:
    return 0


COST_RULES: dict[Op, CostRule] = {
    Op.CONV2D: _convolution,
    Op.DEPTHWISE_CONV2D: _convolution,
    Op.LINEAR: _linear,
    Op.BATCH_NORM: _per_result,
    Op.RELU: _no_arithmetic,
    Op.RELU6: _no_arithmetic,
    Op.LEAKY_RELU: _per_result,
    Op.SIGMOID: _per_result,
    Op.TANH: _per_result,
    Op.HARDSWISH: _per_result,
    Op.SOFTMAX: _per_result,
    Op.ADD: _per_result,
    Op.SUB: _per_result,
    Op.MUL: _per_result,
    Op.MAX_POOL2D: _no_arithmetic,
    Op.AVG_POOL2D: _per_input,
    Op.MEAN: _per_input,
    Op.RESHAPE: _no_arithmetic,
    Op.PERMUTE: _no_arithmetic,
    Op.CONCAT: _no_arithmetic,
    Op.PAD: _no_arithmetic,
    Op.SLICE: _no_arithmetic,
}
