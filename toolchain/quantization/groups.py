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
from toolchain.quantization.domains import Draft
from toolchain.quantization.islands import quantized_activations
from toolchain.quantization.ranges import range_of
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


def fixed_params(draft: Draft, groups: Mapping[str, str]) -> dict[str, AffineParams]:
    """Parameters of the groups that hold the result of an op which fixes them; of several, the first's."""
    fixed: dict[str, AffineParams] = {}
    for node in _fixing(draft):
        fixed.setdefault(groups[node.output], _fixed(draft, node))
    return fixed


def separate_fixed(draft: Draft) -> Draft:
    """The draft with a requantize wherever fixed parameters do not suit their group: in front of the op that joins
    them with other tensors, else behind the op that fixes them."""
    for node in draft.graph.nodes:
        if shares(draft.graph, node, draft.float_nodes) and len(_real_inputs(draft.graph, node)) > 1:
            draft = _separate_join(draft, node)
    groups = shared_groups(draft.graph, draft.float_nodes)
    unsuited = _unsuited(draft, groups)
    behind = {n.output: n for n in _fixing(draft) if groups[n.output] in unsuited}
    return _with_requantize(draft, behind) if behind else draft


def _unsuited(draft: Draft, groups: Mapping[str, str]) -> set[str]:
    """Groups with two fixed results that differ, or a tensor that the fixed range does not cover."""
    fixed = fixed_params(draft, groups)
    own = {node.output for node in _fixing(draft)}
    found = {groups[n.output] for n in _fixing(draft) if _fixed(draft, n) != fixed[groups[n.output]]}
    for name, group in groups.items():
        if name not in own and group in fixed:
            extent = range_of(draft.graph, draft.ranges, name)
            found |= set() if _covers(fixed[group], extent) else {group}
    return found


def _separate_join(draft: Draft, join: Node) -> Draft:
    graph, float_nodes = draft.graph, draft.float_nodes
    groups = shared_groups(graph, float_nodes)
    if groups[join.output] not in _unsuited(draft, groups):
        return draft
    # what each input is fixed to where this op does not tie them
    apart = shared_groups(graph, {**float_nodes, join.output: "apart"})
    fixed = fixed_params(draft, apart)
    node = next(node for node in graph.nodes if node.output == join.output)
    renamed: dict[str, str] = {}
    taken = set(graph.types)
    for name in dict.fromkeys(node.inputs):
        if apart.get(name) in fixed and not graph.is_constant(name):
            renamed[name] = unique_name(f"{name}.requantized", taken)
            taken.add(renamed[name])
    added = [Node(Op.REQUANTIZE, node.name, (old,), (new,), {}, node.source) for old, new in renamed.items()]
    joined = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
    nodes = [n for other in graph.nodes for n in ([*added, joined] if other is node else [other])]
    return draft.with_nodes(nodes, {new: old for old, new in renamed.items()})


def _fixing(draft: Draft) -> Iterator[Node]:
    for node in draft.graph.nodes:
        if QUANTIZATION_RULES[node.op].kind is Kind.FIXED and node.output not in draft.float_nodes:
            yield node


def _fixed(draft: Draft, node: Node) -> AffineParams:
    """The int16 kernels of sigmoid, tanh and softmax all give results at 2^-15, zero point 0."""
    rule, dtype = QUANTIZATION_RULES[node.op], draft.dtypes[node.output]
    if dtype is DType.INT16:
        return AffineParams(dtype, np.asarray(2.0**-15), np.asarray(0), None, -(2**15), 2**15 - 1)
    return AffineParams(DType.INT8, np.asarray(rule.scale), np.asarray(rule.zero_point))


def _covers(params: AffineParams, extent: tuple[float, float]) -> bool:
    (low, high), (lowest, highest), slack = extent, params.bounds, 2 * params.step
    return lowest - slack <= low and high <= highest + slack


def _with_requantize(draft: Draft, behind: Mapping[str, Node]) -> Draft:
    """The fixed result takes a new name; the requantized one has the old, which others and the user know."""
    taken = set(draft.graph.types)
    nodes: list[Node] = []
    inner_of: dict[str, str] = {}
    for node in draft.graph.nodes:
        if node.output not in behind:
            nodes.append(node)
            continue
        inner = unique_name(f"{node.output}.fixed", taken)
        taken.add(inner)
        inner_of[inner] = node.output
        nodes += [
            replace(node, outputs=(inner,)),
            Node(Op.REQUANTIZE, node.name, (inner,), node.outputs, {}, node.source),
        ]
    return draft.with_nodes(nodes, inner_of)


def _real_inputs(graph: Graph, node: Node) -> list[str]:
    return [name for name in node.inputs if graph.is_real(name)]
