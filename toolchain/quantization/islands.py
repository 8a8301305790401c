"""Float islands: which nodes of a graph to be quantized compute in float, and which tensors have parameters all the
same.

A node without an integer kernel is a float node. A node that reads nothing but results of float nodes and is read by
nothing else joins them: quantizing its operands only to dequantize its result would cost rounding and time. So does
what only moves an input of the model on to them. A real tensor has parameters where an integer node makes or reads it;
a float node reads it through one DEQUANTIZE, and makes it through one QUANTIZE.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from types import MappingProxyType

from toolchain.graph import RECURRENT, WEIGHTED, DType, Graph, Node, Op
from toolchain.quantization.domains import node_dtypes
from toolchain.quantization.rules import QUANTIZATION_RULES, Kind
from toolchain.quantization.scheme import NUMBERS, NumberFormat

_ALWAYS_INTEGER = WEIGHTED | {Op.MATMUL}


NO_INT16_KERNEL = frozenset(
    {
        *(Op.HARDSWISH, Op.LOG_SOFTMAX, Op.ELU, Op.RSQRT, Op.DEPTH_TO_SPACE, Op.SPACE_TO_DEPTH, Op.ARGMAX, Op.ARGMIN),
        # there are kernels, but they stray: prelu computes nonsense, exp and gelu are off by 32 and 10 steps, tanh and
        # softmax by 2, bilinear resizing by 27
        *(Op.PRELU, Op.EXP, Op.GELU, Op.TANH, Op.SOFTMAX, Op.RESIZE),
    }
)
"""Ops that LiteRT computes within a step on int8 but not on int16, measured op by op."""

KEPT = "kept in float: in integers it costs too much accuracy"
"""Why a node computes in float that has integer kernels."""


def find_float_nodes(
    graph: Graph,
    activations: DType | None = DType.INT8,
    numbers: Mapping[str, NumberFormat] = MappingProxyType({}),
) -> dict[str, str]:
    """Output of each float node -> why it is one. `activations` is None where all are to stay float; `numbers` holds
    the formats of nodes, by output, that differ from it."""
    if activations is None:
        return {node.output: "activations are float" for node in graph.nodes if _is_real(graph, node)}
    found = {node.output: _why_float(node) for node in graph.nodes if _has_no_kernel(graph, node)}
    for node in graph.nodes:
        chosen = numbers.get(node.output)
        # what moves integers loses nothing by it, unless it joins tensors that want scales of their own
        rounds = (QUANTIZATION_RULES[node.op].rounds or node.op is Op.CONCAT) and _is_real(graph, node)
        if chosen and NUMBERS[chosen].activation is None and rounds:
            found.setdefault(node.output, KEPT)
    dtypes = node_dtypes(graph, activations, numbers)
    wide = [node for node in graph.nodes if dtypes[node.output] is DType.INT16 and node.output not in found]
    found |= {node.output: f"{node.op} has no int16 kernel" for node in wide if node.op in NO_INT16_KERNEL}
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
        is_float = name in float_nodes
        read = any(reader.output not in float_nodes and not _rounds(reader, is_float) for reader in readers)
        unread_input = name not in graph.producers and not readers
        if graph.is_real(name) and (made or read or unread_input):
            found.append(name)
    return tuple(found)


def _rounds(reader: Node, is_float: bool) -> bool:
    """Whether `reader` makes the integers of a float tensor, which stays real itself."""
    return is_float and reader.op is Op.REQUANTIZE


def _has_no_kernel(graph: Graph, node: Node) -> bool:
    if node.op is Op.CAST:
        return graph.is_real(node.output) or graph.is_real(node.inputs[0])
    return QUANTIZATION_RULES[node.op].kind is Kind.FLOAT and _is_real(graph, node)


def _why_float(node: Node) -> str:
    if node.op in RECURRENT:
        return f"the recurrence computes in float: onnxruntime's {node.op} has no integer kernel"
    return f"{node.op} has no integer kernel"


def _is_real(graph: Graph, node: Node) -> bool:
    return any(graph.is_real(name) for name in (*node.inputs, node.output))


def _may_lie_inside(graph: Graph, node: Node) -> bool:
    return node.op not in _ALWAYS_INTEGER and graph.is_real(node.output)


def _touches_only(graph: Graph, name: str, float_nodes: Set[str]) -> bool:
    node, readers = graph.producers[name], graph.consumers.get(name, ())
    read = [given for given in node.inputs if graph.is_real(given) and not graph.is_constant(given)]
    is_between = bool(read) and bool(readers) and name not in graph.outputs
    # what only moves an input on to float nodes moves it unrounded, where no integer node reads it beside them
    moved = [] if QUANTIZATION_RULES[node.op].rounds else [given for given in read if given not in graph.producers]
    makers = [given for given in read if given not in moved]
    beside = [reader.output for given in moved for reader in graph.consumers[given]]
    return is_between and float_nodes >= {*makers, *beside, *(reader.output for reader in readers)}
