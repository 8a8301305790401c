"""Float islands: which nodes of a graph to be quantized compute in float, and which tensors have parameters all the
same.

A node without an integer kernel is a float node. A node that reads nothing but results of float nodes and is read by
nothing else joins them: quantizing its operands only to dequantize its result would cost rounding and time. A real
tensor has parameters where an integer node makes or reads it; a float node reads it through one DEQUANTIZE, and makes
it through one QUANTIZE.
"""

from __future__ import annotations

from collections.abc import Collection, Set

from toolchain.graph import WEIGHTED, DType, Graph, Node, Op
from toolchain.quantization.rules import QUANTIZATION_RULES, Kind

_ALWAYS_INTEGER = WEIGHTED | {Op.MATMUL}


NO_INT16_KERNEL = frozenset({Op.HARDSWISH, Op.LOG_SOFTMAX, Op.ELU, Op.GELU, Op.EXP, Op.RSQRT, Op.ABS, Op.NEG})
"""Ops that LiteRT computes on int8 but not on int16."""


def find_float_nodes(graph: Graph, activations: DType | None = DType.INT8) -> dict[str, str]:
    """Output of each float node -> why it is one. `activations` is None where all are to stay float."""
    if activations is None:
        return {node.output: "activations are float" for node in graph.nodes if _is_real(graph, node)}
    found = {node.output: f"{node.op} has no integer kernel" for node in graph.nodes if _has_no_kernel(graph, node)}
    if activations is DType.INT16:
        nodes = [node for node in graph.nodes if node.op in NO_INT16_KERNEL and node.output not in found]
        found |= {node.output: f"{node.op} has no int16 kernel" for node in nodes}
    inside = {node.output for node in graph.nodes if node.output not in found and _may_lie_inside(graph, node)}
    # the largest set whose members touch nothing but float nodes and each other
    while True:
        loose = {name for name in inside if not _touches_only(graph, name, found.keys() | inside)}
        if not loose:
            return found | dict.fromkeys(sorted(inside), "it lies between ops that compute in float")
        inside -= loose


def quantized_activations(graph: Graph, float_nodes: Collection[str]) -> tuple[str, ...]:
    """Real activations that integer nodes make or read, in evaluation order."""
    found = []
    for name in graph.activations:
        readers = graph.consumers.get(name, ())
        made = name in graph.producers and name not in float_nodes
        read = any(reader.output not in float_nodes for reader in readers)
        unread_input = name not in graph.producers and not readers
        if graph.is_real(name) and (made or read or unread_input):
            found.append(name)
    return tuple(found)


def _has_no_kernel(graph: Graph, node: Node) -> bool:
    if node.op is Op.CAST:
        return graph.is_real(node.output) or graph.is_real(node.inputs[0])
    return QUANTIZATION_RULES[node.op].kind is Kind.FLOAT and _is_real(graph, node)


def _is_real(graph: Graph, node: Node) -> bool:
    return any(graph.is_real(name) for name in (*node.inputs, node.output))


def _may_lie_inside(graph: Graph, node: Node) -> bool:
    return node.op not in _ALWAYS_INTEGER and graph.is_real(node.output)


def _touches_only(graph: Graph, name: str, float_nodes: Set[str]) -> bool:
    node, readers = graph.producers[name], graph.consumers.get(name, ())
    read = [given for given in node.inputs if graph.is_real(given) and not graph.is_constant(given)]
    is_between = bool(read) and bool(readers) and name not in graph.outputs
    return is_between and float_nodes >= {*read, *(reader.output for reader in readers)}
