"""From observed ranges to the affine parameters of every tensor of a folded graph.

Tensors that an op only moves or selects from (`Kind.SHARED`) form groups with one range, the union of their members'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from toolchain.graph import WEIGHTED, DType, Graph, Node, Structure, unsupported
from toolchain.graph.graph import unique_name
from toolchain.quantization.affine import AffineParams, asymmetric_params, bias_params, symmetric_params
from toolchain.quantization.quantized import QuantizedGraph
from toolchain.quantization.rules import QUANTIZATION_RULES, Kind
from toolchain.quantization.scheme import Granularity, Scheme

_BIAS_HEADROOM = 2.0**30  # half of int32: the other half is for the products the bias is added to
_SCALE_SPREAD = 2.0**-20  # a channel smaller than this beside its tensor's largest is rounded to zero


def assign_params(
    graph: Graph, ranges: Mapping[str, tuple[float, float]], scheme: Scheme, structure: Structure | None = None
) -> QuantizedGraph:
    """Give every tensor of the folded `graph` its parameters.

    `ranges` holds (low, high) for every activation. A weight with a codebook is quantized per tensor, so that its k
    values stay k values. Raises UnsupportedError listing an op without integer kernel or a clash of fixed parameters.
    """
    structure = structure or Structure()
    graph = _untie_biases(graph)
    params = _activation_params(graph, ranges, scheme)
    params |= _fit(graph, params, _wanted(graph, scheme, structure))
    for node in graph.nodes:
        if node.op not in WEIGHTED:
            for name in node.inputs:
                if graph.is_constant(name) and name not in params:
                    params[name] = _activation(*_extent(graph.constants[name]), scheme)
    return QuantizedGraph(graph, params)


def shared_groups(graph: Graph) -> dict[str, str]:
    """Activation, or constant that shares with one -> representative of the tensors that must carry the same parameters
    (union-find)."""
    shared = [node for node in graph.nodes if QUANTIZATION_RULES[node.op].kind is Kind.SHARED]
    parent = {name: name for name in (*graph.activations, *(name for node in shared for name in node.inputs))}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in shared:
        for name in (*node.inputs, *node.outputs):
            parent[root(name)] = root(node.inputs[0])
    return {name: root(name) for name in parent}


def _activation_params(
    graph: Graph, ranges: Mapping[str, tuple[float, float]], scheme: Scheme
) -> dict[str, AffineParams]:
    groups = shared_groups(graph)
    fixed = _fixed_params(graph, groups, scheme)
    merged: dict[str, tuple[float, float]] = {}
    for name, group in groups.items():
        low, high = ranges[name] if name in ranges else _extent(graph.constants[name])
        before = merged.get(group, (low, high))
        merged[group] = (min(before[0], low), max(before[1], high))
    _check_covered(graph, groups, fixed, merged)
    made = {group: fixed.get(group) or _activation(*extent, scheme) for group, extent in merged.items()}
    return {name: made[group] for name, group in groups.items()}


def _fixed_params(graph: Graph, groups: Mapping[str, str], scheme: Scheme) -> dict[str, AffineParams]:
    fixed: dict[str, AffineParams] = {}
    for node in graph.nodes:
        rule = QUANTIZATION_RULES[node.op]
        if rule.kind is Kind.FLOAT:
            raise unsupported(node, "has no integer kernel", "fold it into a convolution or linear layer before it")
        if rule.kind is Kind.FIXED:
            wanted = AffineParams(DType.INT8, np.asarray(rule.scale), np.asarray(rule.zero_point))
            group = groups[node.output]
            if fixed.setdefault(group, wanted) != wanted:
                raise unsupported(node, "shares its scale with a tensor of another fixed scale", "concatenate earlier")
    return fixed


def _check_covered(
    graph: Graph,
    groups: Mapping[str, str],
    fixed: Mapping[str, AffineParams],
    ranges: Mapping[str, tuple[float, float]],
) -> None:
    """Raises UnsupportedError where a tensor would be saturated to the fixed range of one it is joined with."""
    for node in graph.nodes:
        group = groups[node.output]
        if QUANTIZATION_RULES[node.op].kind is Kind.SHARED and group in fixed:
            (low, high), (lowest, highest), slack = ranges[group], fixed[group].bounds, 2 * fixed[group].step
            if low < lowest - slack or high > highest + slack:
                raise unsupported(
                    node,
                    f"shares the fixed scale of a sigmoid, tanh or softmax, but values go from {low:.3g} to {high:.3g}",
                    "join the tensors before it, or multiply its result by 1.0, which gets a scale of its own",
                )


def _activation(low: float, high: float, scheme: Scheme) -> AffineParams:
    if not scheme.activation_symmetric:
        return asymmetric_params(low, high, scheme.activation_dtype)
    params = symmetric_params(np.asarray(max(abs(low), abs(high))), scheme.activation_dtype)
    return replace(params, q_min=params.q_min - 1)


def refit_weights(graph: Graph, params: Mapping[str, AffineParams]) -> QuantizedGraph:
    """The same parameters for activations, new ones for weights and biases whose values have changed."""
    wanted = {
        node.inputs[1]: (_granularity(params[node.inputs[1]]), params[node.inputs[1]].dtype)
        for node in graph.nodes
        if node.op in WEIGHTED and node.inputs[1] in params
    }
    return QuantizedGraph(graph, {**params, **_fit(graph, params, wanted)})


def _granularity(params: AffineParams) -> Granularity:
    return Granularity.PER_TENSOR if params.axis is None else Granularity.PER_CHANNEL


_Wanted: TypeAlias = Mapping[str, tuple[Granularity, DType]]
"""What each weight is quantized to."""


def _wanted(graph: Graph, scheme: Scheme, structure: Structure) -> _Wanted:
    layers = {node.inputs[1]: node.op for node in graph.nodes if node.op in WEIGHTED}
    return {
        name: (Granularity.PER_TENSOR if name in structure.codebooks else scheme.granularity(op), scheme.weight_dtype)
        for name, op in layers.items()
    }


def _fit(graph: Graph, params: Mapping[str, AffineParams], wanted: _Wanted) -> dict[str, AffineParams]:
    """Parameters of the wanted weights and of their biases; a weight that several nodes read has one scale for all."""
    layers = [node for node in graph.nodes if node.op in WEIGHTED and node.inputs[1] in wanted]
    bounds: dict[str, np.ndarray] = {}
    for node in layers:
        bound = _weight_bound(graph, node, params[node.inputs[0]])
        bounds[node.inputs[1]] = np.maximum(bounds.get(node.inputs[1], 0.0), bound)
    fitted = {name: _weight_params(bound, *wanted[name]) for name, bound in bounds.items()}
    return fitted | {
        name: bias_params(params[node.inputs[0]], fitted[node.inputs[1]]) for node in layers for name in node.inputs[2:]
    }


def _weight_bound(graph: Graph, node: Node, source: AffineParams) -> np.ndarray:
    """What each output channel's integers must reach: its largest weight, or more where its bias needs that."""
    weight = graph.constants[node.inputs[1]]
    bound: np.ndarray = np.abs(weight.reshape(len(weight), -1)).max(axis=1).astype(np.float64)
    bound = np.maximum(bound, bound.max() * _SCALE_SPREAD)
    for name in node.inputs[2:]:
        bias = np.abs(graph.constants[name].astype(np.float64))
        bound = np.maximum(bound, bias * 127 / (source.step * _BIAS_HEADROOM))
    return bound


def _weight_params(bound: np.ndarray, granularity: Granularity, dtype: DType) -> AffineParams:
    if granularity == Granularity.PER_TENSOR:
        return symmetric_params(bound.max(), dtype)
    return symmetric_params(bound, dtype, axis=0)


def _extent(constant: np.ndarray) -> tuple[float, float]:
    return float(constant.min()), float(constant.max())


def _untie_biases(graph: Graph) -> Graph:
    """A bias read by several nodes becomes one bias a node: its integers depend on the node's input scale."""
    constants = dict(graph.constants)
    seen: set[str] = set()

    def untied(node: Node) -> Node:
        if node.op not in WEIGHTED or len(node.inputs) < 3:
            return node
        bias = node.inputs[2]
        if bias not in seen:
            seen.add(bias)
            return node
        name = unique_name(bias, constants)
        constants[name] = constants[bias]
        return replace(node, inputs=(*node.inputs[:2], name))

    return graph.with_nodes([untied(node) for node in graph.nodes], constants)
