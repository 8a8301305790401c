"""From observed ranges to the affine parameters of every tensor of a folded graph.

Tensors that an op only moves or selects from (`Kind.SHARED`) form groups with one range, the union of their members'
(see `groups`); ops without an integer kernel compute in float (see `islands`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from toolchain.errors import UnsupportedError, raise_collected
from toolchain.graph import WEIGHTED, DType, Graph, Node, Op, Structure
from toolchain.graph.graph import unique_name
from toolchain.quantization.affine import (
    AffineParams,
    asymmetric_params,
    bias_params,
    largest_integer,
    symmetric_params,
)
from toolchain.quantization.groups import fixed_params, separate_fixed, shared_groups
from toolchain.quantization.islands import find_float_nodes
from toolchain.quantization.masks import limit_masks
from toolchain.quantization.quantized import QuantizedGraph
from toolchain.quantization.ranges import Ranges, range_of
from toolchain.quantization.scheme import Granularity, Scheme

_BIAS_HEADROOM = 2.0**30  # half of int32: the other half is for the products the bias is added to
_SCALE_SPREAD = 2.0**-20  # a channel smaller than this beside its tensor's largest is rounded to zero


def assign_params(graph: Graph, ranges: Ranges, scheme: Scheme, structure: Structure | None = None) -> QuantizedGraph:
    """Give every tensor of the folded `graph` its parameters.

    `ranges` holds (low, high) for every real activation. A weight with a codebook is quantized per tensor, so that
    its k values stay k values. Raises UnsupportedError where the scheme allows no float islands and the graph needs
    some.
    """
    structure = structure or Structure()
    graph = _untie_tables(_untie_biases(graph))
    float_nodes = find_float_nodes(graph, scheme.activation_dtype)
    _check_islands(graph, float_nodes, scheme)
    if scheme.activation_dtype is None:
        return QuantizedGraph(graph, _fit(graph, {}, _wanted(graph, scheme, structure)), {}, float_nodes, scheme.reals)
    graph, ranges = separate_fixed(graph, limit_masks(graph, ranges), float_nodes, scheme.activation_dtype)
    params = _activation_params(graph, ranges, scheme, float_nodes)
    params |= _fit(graph, params, _wanted(graph, scheme, structure))
    for node in graph.nodes:
        if node.op not in WEIGHTED and node.output not in float_nodes:
            for name in node.inputs:
                if graph.is_constant(name) and graph.is_real(name) and name not in params:
                    params[name] = _activation(*range_of(graph, ranges, name), scheme)
    return QuantizedGraph(graph, params, {}, float_nodes, scheme.reals)


def _check_islands(graph: Graph, float_nodes: Mapping[str, str], scheme: Scheme) -> None:
    if not scheme.float_islands:
        findings = [
            f"{n.op} {n.name} [{n.source}]: {float_nodes[n.output]}" for n in graph.nodes if n.output in float_nodes
        ]
        raise_collected(
            UnsupportedError,
            f"the device computes nothing in float, and {len(findings)} op(s) have no integer kernel:",
            findings,
            hint="write them with ops that have one, or choose another target",
        )


def _activation_params(
    graph: Graph, ranges: Ranges, scheme: Scheme, float_nodes: Mapping[str, str]
) -> dict[str, AffineParams]:
    groups = shared_groups(graph, float_nodes)
    fixed = fixed_params(graph, groups, float_nodes, scheme.activation_dtype or DType.INT8)
    merged: dict[str, tuple[float, float]] = {}
    for name, group in groups.items():
        low, high = range_of(graph, ranges, name)
        before = merged.get(group, (low, high))
        merged[group] = (min(before[0], low), max(before[1], high))
    made = {group: fixed.get(group) or _activation(*extent, scheme) for group, extent in merged.items()}
    for node in graph.nodes:
        if node.op is Op.MEAN and node.output not in float_nodes:
            made[groups[node.output]] = _no_finer(made[groups[node.output]], _finest_mean(graph, node, made, groups))
    return {name: made[group] for name, group in groups.items()}


def _finest_mean(graph: Graph, node: Node, made: Mapping[str, AffineParams], groups: Mapping[str, str]) -> float:
    """The step between the means that integers can have: finer ones would show the rounding of floats, and kernels do
    not take them."""
    count = graph.types[node.inputs[0]].elements // graph.types[node.output].elements
    return made[groups[node.inputs[0]]].step / count


def _no_finer(params: AffineParams, step: float) -> AffineParams:
    return params if params.step >= step else replace(params, scale=np.full_like(params.scale, step))


def _activation(low: float, high: float, scheme: Scheme) -> AffineParams:
    assert scheme.activation_dtype is not None
    if not scheme.activation_symmetric:
        return asymmetric_params(low, high, scheme.activation_dtype)
    params = symmetric_params(np.asarray(max(abs(low), abs(high))), scheme.activation_dtype)
    return replace(params, q_min=params.q_min - 1)


def refit_weights(graph: Graph, params: Mapping[str, AffineParams]) -> dict[str, AffineParams]:
    """The same parameters for activations, new ones for weights and biases whose values have changed."""
    wanted = {
        node.inputs[1]: (_granularity(params[node.inputs[1]]), params[node.inputs[1]].dtype)
        for node in graph.nodes
        if node.op in WEIGHTED and node.inputs[1] in params
    }
    return {**params, **_fit(graph, params, wanted)}


def _granularity(params: AffineParams) -> Granularity:
    return Granularity.PER_TENSOR if params.axis is None else Granularity.PER_CHANNEL


_Wanted: TypeAlias = Mapping[str, tuple[Granularity, DType]]
"""What each weight is quantized to."""


def _wanted(graph: Graph, scheme: Scheme, structure: Structure) -> _Wanted:
    if (dtype := scheme.weight_dtype) is None:
        return {}
    layers = {node.inputs[1]: node.op for node in graph.nodes if node.op in WEIGHTED}
    return {
        name: (Granularity.PER_TENSOR if name in structure.codebooks else scheme.granularity(op), dtype)
        for name, op in layers.items()
    }


def _fit(graph: Graph, params: Mapping[str, AffineParams], wanted: _Wanted) -> dict[str, AffineParams]:
    """Parameters of the wanted weights and of their biases; a weight that several nodes read has one scale for all."""
    layers = [node for node in graph.nodes if node.op in WEIGHTED and node.inputs[1] in wanted]
    bounds: dict[str, np.ndarray] = {}
    for node in layers:
        bound = _weight_bound(graph, node, params.get(node.inputs[0]), wanted[node.inputs[1]][1])
        bounds[node.inputs[1]] = np.maximum(bounds.get(node.inputs[1], 0.0), bound)
    fitted = {name: _weight_params(bound, *wanted[name]) for name, bound in bounds.items()}
    return fitted | {
        name: bias_params(params[node.inputs[0]], fitted[node.inputs[1]])
        for node in layers
        for name in node.inputs[2:]
        if node.inputs[0] in params
    }


def _weight_bound(graph: Graph, node: Node, source: AffineParams | None, dtype: DType) -> np.ndarray:
    """What each output channel's integers must reach: its largest weight, or more where its bias needs that."""
    weight = graph.constants[node.inputs[1]]
    bound: np.ndarray = np.abs(weight.reshape(len(weight), -1)).max(axis=1).astype(np.float64)
    bound = np.maximum(bound, bound.max() * _SCALE_SPREAD)
    for name in node.inputs[2:]:
        if source is None:
            break  # a bias beside float activations stays real
        bias = np.abs(graph.constants[name].astype(np.float64))
        bound = np.maximum(bound, bias * largest_integer(dtype) / (source.step * _BIAS_HEADROOM))
    return bound


def _weight_params(bound: np.ndarray, granularity: Granularity, dtype: DType) -> AffineParams:
    if granularity == Granularity.PER_TENSOR:
        return symmetric_params(bound.max(), dtype)
    return symmetric_params(bound, dtype, axis=0)


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


def _untie_tables(graph: Graph) -> Graph:
    """A layer's weight that other ops read as well, as the table of an embedding, becomes a tensor of its own for
    these: the layer wants a scale for each output channel, they the parameters of their results."""
    weights = {node.inputs[1] for node in graph.nodes if node.op in WEIGHTED and graph.is_constant(node.inputs[1])}
    constants = dict(graph.constants)
    copies: dict[str, str] = {}

    def untied(node: Node) -> Node:
        for name in node.inputs:
            if name in weights and name not in copies and node.op not in WEIGHTED:
                copies[name] = unique_name(name, constants)
                constants[copies[name]] = constants[name]
        names = node.inputs if node.op in WEIGHTED else tuple(copies.get(name, name) for name in node.inputs)
        return replace(node, inputs=names)

    return graph.with_nodes([untied(node) for node in graph.nodes], constants)
