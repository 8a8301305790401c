"""Tensors that must carry the same parameters, because an op moves or selects integers from one to the other.

A group that holds the result of an op with fixed parameters (sigmoid, tanh, softmax) has these. Where a group would
hold two fixed results that differ, or a tensor that the fixed range does not cover, the fixed result is given a scale
of its own: a `requantize` node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from toolchain.graph import DType, Graph, Node, Op
from toolchain.graph.graph import unique_name
from toolchain.quantization.affine import AffineParams
from toolchain.quantization.islands import quantized_activations
from toolchain.quantization.ranges import Ranges, range_of
from toolchain.quantization.rules import QUANTIZATION_RULES, Kind


def shared_groups(graph: Graph, float_nodes: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Quantized activation, or constant that shares with one -> representative of the tensors that must carry the same
    parameters (union-find)."""
    shared = [node for node in graph.nodes if shares(graph, node, float_nodes)]
    members = (*quantized_activations(graph, float_nodes), *(n for node in shared for n in _real_inputs(graph, node)))
    parent = {name: name for name in members}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in shared:
        first, *others = (*_real_inputs(graph, node), node.output)
        for name in others:
            parent[root(name)] = root(first)
    return {name: root(name) for name in parent}


def shares(graph: Graph, node: Node, float_nodes: Mapping[str, str]) -> bool:
    """Whether the op's real inputs and its result carry the same parameters."""
    is_shared = QUANTIZATION_RULES[node.op].kind is Kind.SHARED
    return is_shared and node.output not in float_nodes and graph.is_real(node.output)


def fixed_params(
    graph: Graph, groups: Mapping[str, str], float_nodes: Mapping[str, str], dtype: DType
) -> dict[str, AffineParams]:
    """Parameters of the groups that hold the result of an op which fixes them; of several, the first's."""
    fixed: dict[str, AffineParams] = {}
    for node in _fixing(graph, float_nodes):
        fixed.setdefault(groups[node.output], _fixed(node, dtype))
    return fixed


def separate_fixed(graph: Graph, ranges: Ranges, float_nodes: Mapping[str, str], dtype: DType) -> tuple[Graph, Ranges]:
    """`graph` with a requantize wherever fixed parameters do not suit their group, and the ranges of it: in front of
    the op that joins them with other tensors, else behind the op that fixes them."""
    for node in graph.nodes:
        if shares(graph, node, float_nodes) and len(_real_inputs(graph, node)) > 1:
            graph, ranges = _separate_join(graph, node, ranges, float_nodes, dtype)
    groups = shared_groups(graph, float_nodes)
    unsuited = _unsuited(graph, groups, ranges, float_nodes, dtype)
    behind = {n.output: n for n in _fixing(graph, float_nodes) if groups[n.output] in unsuited}
    return _with_requantize(graph, behind, ranges) if behind else (graph, ranges)


def _unsuited(
    graph: Graph, groups: Mapping[str, str], ranges: Ranges, float_nodes: Mapping[str, str], dtype: DType
) -> set[str]:
    """Groups with two fixed results that differ, or a tensor that the fixed range does not cover."""
    fixed = fixed_params(graph, groups, float_nodes, dtype)
    own = {node.output for node in _fixing(graph, float_nodes)}
    found = {groups[n.output] for n in _fixing(graph, float_nodes) if _fixed(n, dtype) != fixed[groups[n.output]]}
    for name, group in groups.items():
        if name not in own and group in fixed and not _covers(fixed[group], range_of(graph, ranges, name)):
            found.add(group)
    return found


def _separate_join(
    graph: Graph, join: Node, ranges: Ranges, float_nodes: Mapping[str, str], dtype: DType
) -> tuple[Graph, Ranges]:
    groups = shared_groups(graph, float_nodes)
    if groups[join.output] not in _unsuited(graph, groups, ranges, float_nodes, dtype):
        return graph, ranges
    # what each input is fixed to where this op does not tie them
    apart = shared_groups(graph, {**float_nodes, join.output: "apart"})
    fixed = fixed_params(graph, apart, float_nodes, dtype)
    node = next(node for node in graph.nodes if node.output == join.output)
    renamed: dict[str, str] = {}
    extended, taken = dict(ranges), set(graph.types)
    for name in dict.fromkeys(node.inputs):
        if apart.get(name) in fixed and not graph.is_constant(name):
            renamed[name] = unique_name(f"{name}.requantized", taken)
            taken.add(renamed[name])
            extended[renamed[name]] = ranges[name]
    added = [Node(Op.REQUANTIZE, node.name, (old,), (new,), {}, node.source) for old, new in renamed.items()]
    joined = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
    nodes = [n for other in graph.nodes for n in ([*added, joined] if other is node else [other])]
    return graph.with_nodes(nodes), extended


def _fixing(graph: Graph, float_nodes: Mapping[str, str]) -> Iterator[Node]:
    for node in graph.nodes:
        if QUANTIZATION_RULES[node.op].kind is Kind.FIXED and node.output not in float_nodes:
            yield node


def _fixed(node: Node, dtype: DType) -> AffineParams:
    """The int16 kernels of sigmoid, tanh and softmax all give results at 2^-15, zero point 0."""
    rule = QUANTIZATION_RULES[node.op]
    if dtype is DType.INT16:
        return AffineParams(dtype, np.asarray(2.0**-15), np.asarray(0), None, -(2**15), 2**15 - 1)
    return AffineParams(DType.INT8, np.asarray(rule.scale), np.asarray(rule.zero_point))


def _covers(params: AffineParams, extent: tuple[float, float]) -> bool:
    (low, high), (lowest, highest), slack = extent, params.bounds, 2 * params.step
    return lowest - slack <= low and high <= highest + slack


def _with_requantize(graph: Graph, behind: Mapping[str, Node], ranges: Ranges) -> tuple[Graph, Ranges]:
    """The fixed result takes a new name; the requantized one has the old, which others and the user know."""
    taken = set(graph.types)
    nodes: list[Node] = []
    extended = dict(ranges)
    for node in graph.nodes:
        if node.output not in behind:
            nodes.append(node)
            continue
        inner = unique_name(f"{node.output}.fixed", taken)
        taken.add(inner)
        extended[inner] = ranges[node.output]
        nodes += [
            replace(node, outputs=(inner,)),
            Node(Op.REQUANTIZE, node.name, (inner,), node.outputs, {}, node.source),
        ]
    return graph.with_nodes(nodes), extended


def _real_inputs(graph: Graph, node: Node) -> list[str]:
    return [name for name in node.inputs if graph.is_real(name)]
