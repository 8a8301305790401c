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
from toolchain.graph.ops import RECURRENT, Op
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
    return sum(activations_at_peak(graph, element_bytes).values())


def activations_at_peak(graph: Graph, element_bytes: int | None = None) -> dict[str, int]:
    """Bytes of the activations that are alive where they take the most, the largest first."""

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
    peak = live
    for index, node in enumerate(graph.nodes):
        live = live | {name: size(name) for name in node.outputs if owner[name] == name}
        peak = max(peak, live, key=lambda alive: sum(alive.values()))
        live = {name: bytes_ for name, bytes_ in live.items() if last_use[name] > index}
    return dict(sorted(peak.items(), key=lambda pair: -pair[1]))


def _convolution(node: Node, given: list[TensorType], result: TensorType) -> int:
    return result.elements * prod(given[1].shape[1:])


def _linear(node: Node, given: list[TensorType], result: TensorType) -> int:
    return result.elements * given[1].shape[1]


def _recurrent(node: Node, given: list[TensorType], result: TensorType) -> int:
    (batch, steps, _), weight, recurrent_weight = given[0].shape, given[1], given[2]
    return batch * steps * (weight.elements + recurrent_weight.elements)


def _per_result(node: Node, given: list[TensorType], result: TensorType) -> int:
    return result.elements


def _per_input(node: Node, given: list[TensorType], result: TensorType) -> int:
    return given[0].elements


def _no_arithmetic(node: Node, given: list[TensorType], result: TensorType) -> int:
    return 0


def _matmul(node: Node, given: list[TensorType], result: TensorType) -> int:
    return result.elements * given[0].shape[-1]


def _conv_transpose(node: Node, given: list[TensorType], result: TensorType) -> int:
    # every input element meets each weight of its group's features once
    features_per_group: int = given[1].shape[0] // node["groups"]
    return given[0].elements * features_per_group * prod(given[1].shape[2:])


_FREE = (
    *(Op.RELU, Op.RELU6, Op.CLAMP, Op.ABS, Op.NEG, Op.FLOOR, Op.CEIL, Op.ROUND, Op.SIGN, Op.CAST, Op.MINIMUM),
    *(Op.MAXIMUM, Op.EQUAL, Op.NOT_EQUAL, Op.LESS, Op.LESS_EQUAL, Op.GREATER, Op.GREATER_EQUAL, Op.LOGICAL_AND),
    *(Op.LOGICAL_OR, Op.LOGICAL_NOT, Op.WHERE, Op.MAX_POOL2D, Op.REDUCE_MAX, Op.REDUCE_MIN, Op.ARGMAX, Op.ARGMIN),
    *(Op.TOPK_VALUES, Op.TOPK_INDICES, Op.RESHAPE, Op.PERMUTE, Op.CONCAT, Op.PAD, Op.SLICE, Op.EXPAND, Op.GATHER),
    *(Op.GATHER_ELEMENTS, Op.DEPTH_TO_SPACE, Op.SPACE_TO_DEPTH),
)
_ONE_A_RESULT = (
    *(Op.BATCH_NORM, Op.LEAKY_RELU, Op.PRELU, Op.ELU, Op.GELU, Op.SIGMOID, Op.TANH, Op.HARDSWISH, Op.SOFTPLUS, Op.MISH),
    *(Op.SOFTMAX, Op.LOG_SOFTMAX, Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.SIN, Op.COS, Op.ERF, Op.REQUANTIZE, Op.ADD),
    *(Op.SUB, Op.MUL, Op.DIV, Op.POW, Op.RESIZE, Op.CUMSUM),
)

COST_RULES: dict[Op, CostRule] = {
    **dict.fromkeys(_FREE, _no_arithmetic),
    **dict.fromkeys(_ONE_A_RESULT, _per_result),
    **dict.fromkeys((Op.LAYER_NORM, Op.RMS_NORM, Op.AVG_POOL2D, Op.MEAN, Op.SUM), _per_input),
    **dict.fromkeys((Op.CONV2D, Op.DEPTHWISE_CONV2D), _convolution),
    Op.CONV_TRANSPOSE2D: _conv_transpose,
    Op.LINEAR: _linear,
    **dict.fromkeys(RECURRENT, _recurrent),
    Op.MATMUL: _matmul,
}
