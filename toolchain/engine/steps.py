"""Which scales of a quantized graph may be learned, and what ties them.

Tensors that an op moves integers between have one scale (`quantization.groups`). What an op fixes stays (softmax,
sigmoid, tanh), and so do int16 activations, whose steps are no matter, and a group on either side of a change of number
format, whose integers mean the same reals. A mean is never finer than the means of integers: s_mean >= s_in / count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolchain.graph import WEIGHTED, DType, Graph, Op, weight_inputs
from toolchain.quantization import QUANTIZATION_RULES, AffineParams, Kind, shared_groups


@dataclass(frozen=True)
class LearnableSteps:
    """`groups` maps tensors, constants among them, to their group; `scales` says where each group starts, () or (C,);
    `least` maps a group to another and the share of its scale that it keeps above."""

    groups: Mapping[str, str]
    scales: Mapping[str, np.ndarray]
    least: Mapping[str, tuple[str, float]]


def learnable_steps(graph: Graph, params: Mapping[str, AffineParams], float_nodes: Mapping[str, str]) -> LearnableSteps:
    """All of `graph`; biases have no scales of their own."""
    shared = shared_groups(graph, float_nodes)
    biases = {name for node in graph.nodes if node.op in WEIGHTED for name in node.inputs[2:]}
    weights = {node.inputs[at] for node in graph.nodes for at in weight_inputs(node.op)}
    groups = {name: name if name in weights else shared.get(name, name) for name in params if name not in biases}
    held = _held(graph, params, float_nodes, groups)
    # what files hold of the scales of blocks has few bits
    groups = {name: group for name, group in groups.items() if group not in held and params[name].block is None}
    # sorted: a specification that was saved and loaded has its tensors in another order
    scales = {groups[name]: params[name].scale for name in sorted(groups)}
    least = {}
    for node in graph.nodes:
        if node.op is Op.MEAN and node.output not in float_nodes:
            source, result = groups.get(node.inputs[0]), groups.get(node.output)
            if source is not None and result is not None and source != result:
                count = graph.types[node.inputs[0]].elements // graph.types[node.output].elements
                least[result] = (source, 1 / count)
    return LearnableSteps(groups, scales, least)


def _held(
    graph: Graph, params: Mapping[str, AffineParams], float_nodes: Mapping[str, str], groups: Mapping[str, str]
) -> set[str]:
    """Groups whose scale stays."""
    held = set()
    for node in graph.nodes:
        source, result = params.get(node.inputs[0]) if node.inputs else None, params.get(node.output)
        if result is None:
            continue
        if QUANTIZATION_RULES[node.op].kind is Kind.FIXED and node.output not in float_nodes:
            held.add(groups[node.output])
        if node.op is Op.REQUANTIZE and source is not None and source.dtype is not result.dtype:
            held |= {groups[node.inputs[0]], groups[node.output]}
        if node.op is Op.MEAN and source is not None and node.output not in float_nodes:
            # what is held bounds the mean as it is
            held |= {groups[node.output]} if groups[node.inputs[0]] in held else set()
    first: dict[str, AffineParams] = {}
    for name, group in groups.items():
        is_fine = params[name].dtype is DType.INT16
        if first.setdefault(group, params[name]) != params[name] or is_fine:
            held.add(group)
    return held
