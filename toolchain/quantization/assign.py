"""From observed ranges to the affine parameters of every tensor of a folded graph.

Tensors that an op only moves or selects from (`Kind.SHARED`) form groups with one range, the union of their members'
(see `groups`); ops without an integer kernel compute in float (see `islands`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from toolchain.errors import UnsupportedError, raise_collected
from toolchain.graph import RECURRENT, WEIGHTED, DType, Graph, Node, Op, Structure, weight_inputs
from toolchain.graph.graph import unique_name
from toolchain.quantization.affine import (
    AffineParams,
    bias_params,
    block_params,
    largest_integer,
    symmetric_params,
)
from toolchain.quantization.blocks import block_sizes
from toolchain.quantization.domains import Draft, separate_dtypes
from toolchain.quantization.groups import fixed_params, separate_fixed, shared_groups
from toolchain.quantization.islands import find_float_nodes
from toolchain.quantization.masks import limit_masks
from toolchain.quantization.quantized import QuantizedGraph
from toolchain.quantization.range_methods import activation_params
from toolchain.quantization.ranges import Ranges, range_of
from toolchain.quantization.scheme import NUMBERS, Granularity, NumberFormat, Scheme

_BIAS_HEADROOM = 2.0**30  # half of int32: the other half is for the products the bias is added to
_SMALLEST_MULTIPLIER = 2.0**-23
"""Of s_in s_w / s_out. With a smaller one the products are lost in the rounding of the result, its bias takes all of
int32, and kernels go wrong: below 2^-24 depthwise convolutions on Hexagon v68 and v69 saturate."""
_SCALE_SPREAD = 2.0**-20  # a channel smaller than this beside its tensor's largest is rounded to zero

_NO_INT4_KERNEL = frozenset({Op.CONV_TRANSPOSE2D})
"""Layers whose weights stay int8 where int4 is asked for: LiteRT refuses a TRANSPOSE_CONV of int4."""


def assign_params(
    graph: Graph,
    ranges: Ranges,
    scheme: Scheme,
    structure: Structure | None = None,
    *,
    numbers: Mapping[str, NumberFormat] = MappingProxyType({}),
    weight_bounds: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> QuantizedGraph:
    """Give every tensor of the folded `graph` its parameters.

    `ranges` holds (low, high) for every real activation. `numbers` are the formats of the nodes, by output, that
    differ from the scheme's: int16 or float where int8 costs too much, int4 weights. `weight_bounds` (O,) says where
    the grids of weights end, by default at each channel's largest. A weight whose output channels share a codebook is
    quantized per tensor, so that its k values stay k values. Raises UnsupportedError where the scheme allows no float
    islands and the graph needs some.
    """
    structure = structure or Structure()
    graph = _untie_tables(_untie_biases(graph))
    float_nodes = find_float_nodes(graph, scheme.activation_dtype, numbers)
    _check_islands(graph, float_nodes, scheme)
    if scheme.activation_dtype is None:
        wanted = _wanted(graph, scheme, structure, numbers)
        fitted = _fit(graph, {}, wanted, weight_bounds, float_nodes)
        return QuantizedGraph(graph, fitted, {}, float_nodes, scheme.reals)
    ranges = limit_masks(graph, ranges)
    draft = separate_fixed(separate_dtypes(graph, ranges, float_nodes, scheme.activation_dtype, numbers))
    graph = draft.graph
    params = _activation_params(draft, scheme)
    params |= _fit(graph, params, _wanted(graph, scheme, structure, numbers), weight_bounds, float_nodes)
    for node in graph.nodes:
        if node.op not in WEIGHTED and node.output not in float_nodes:
            for name in node.inputs:
                if graph.is_constant(name) and graph.is_real(name) and name not in params:
                    dtype = draft.dtypes.get(name, scheme.activation_dtype)
                    params[name] = _activation(range_of(graph, draft.ranges, name), dtype, scheme)
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


def _activation_params(draft: Draft, scheme: Scheme) -> dict[str, AffineParams]:
    graph = draft.graph
    groups = shared_groups(graph, draft.float_nodes)
    fixed = fixed_params(draft, groups)
    merged: dict[str, tuple[float, float]] = {}
    dtypes: dict[str, DType] = {}
    for name, group in groups.items():
        low, high = range_of(graph, draft.ranges, name)
        before = merged.get(group, (low, high))
        merged[group] = (min(before[0], low), max(before[1], high))
        dtypes.setdefault(group, draft.dtypes[name])
    for node in graph.nodes:
        if node.op is Op.REQUANTIZE and draft.dtypes[node.output] is not draft.dtypes[node.inputs[0]] is DType.INT8:
            # whatever the int8 integers can say; a group's range may be far wider than one member's
            merged[groups[node.output]] = merged[groups[node.inputs[0]]]
    made = {group: fixed.get(group) or _activation(extent, dtypes[group], scheme) for group, extent in merged.items()}
    for node in graph.nodes:
        if node.op is Op.MEAN and node.output not in draft.float_nodes:
            made[groups[node.output]] = _no_finer(made[groups[node.output]], _finest_mean(graph, node, made, groups))
    return {name: made[group] for name, group in groups.items()}


def _finest_mean(graph: Graph, node: Node, made: Mapping[str, AffineParams], groups: Mapping[str, str]) -> float:
    """The step between the means that integers can have: finer ones would show the rounding of floats, and kernels do
    not take them."""
    count = graph.types[node.inputs[0]].elements // graph.types[node.output].elements
    return made[groups[node.inputs[0]]].step / count


def _no_finer(params: AffineParams, step: float) -> AffineParams:
    return params if params.step >= step else replace(params, scale=np.full_like(params.scale, step))


def _activation(extent: tuple[float, float], dtype: DType, scheme: Scheme) -> AffineParams:
    # the int16 kernels know no zero point
    return activation_params(*extent, dtype, symmetric=scheme.activation_symmetric or dtype is DType.INT16)


def refit_weights(graph: Graph, params: Mapping[str, AffineParams]) -> dict[str, AffineParams]:
    """The same parameters for activations, new ones for weights and biases whose values have changed."""
    wanted = {
        node.inputs[at]: _Grid.of(params[node.inputs[at]])
        for node in graph.nodes
        for at in weight_inputs(node.op)
        if node.inputs[at] in params
    }
    fitted = _fit(graph, params, wanted, {}, ())
    return {**params, **{name: fit for name, fit in fitted.items() if name in params}}


@dataclass(frozen=True)
class _Grid:
    """What a weight is quantized to."""

    granularity: Granularity
    dtype: DType
    bits: int | None
    block: int | None = None

    @classmethod
    def of(cls, params: AffineParams) -> _Grid:
        granularity = Granularity.PER_TENSOR if params.axis is None else Granularity.PER_CHANNEL
        return cls(granularity, params.dtype, int(params.q_max).bit_length() + 1, params.block)

    def params(self, bound: np.ndarray) -> AffineParams:
        """Parameters for weights within `bound`, (O,) or (O, blocks)."""
        if self.block is not None:
            return block_params(bound, self.block, self.dtype, self.bits)
        if self.granularity == Granularity.PER_TENSOR:
            return symmetric_params(bound.max(), self.dtype, bits=self.bits)
        return symmetric_params(bound, self.dtype, axis=0, bits=self.bits)


def _wanted(
    graph: Graph,
    scheme: Scheme,
    structure: Structure,
    numbers: Mapping[str, NumberFormat],
) -> dict[str, _Grid]:
    """What each weight is quantized to. Beside integers a node kept in float keeps its weight in float as well."""
    found: dict[str, _Grid] = {}
    blocks = block_sizes(graph, scheme, structure, numbers)
    for node in graph.nodes:
        chosen = NUMBERS[numbers[node.output]] if node.output in numbers else None
        dtype = scheme.weight_dtype if chosen is None else chosen.weight
        if dtype is None:
            continue
        dtype = DType.INT8 if dtype is DType.INT4 and node.op in _NO_INT4_KERNEL else dtype
        for name in (node.inputs[at] for at in weight_inputs(node.op)):
            book = structure.codebooks.get(name)
            is_shared = book is not None and not book.is_per_channel
            granularity = Granularity.PER_TENSOR if is_shared else scheme.granularity(node.op)
            found[name] = _Grid(granularity, dtype, scheme.weight_bits, blocks.get(name))
    return found


def _fit(
    graph: Graph,
    params: Mapping[str, AffineParams],
    wanted: Mapping[str, _Grid],
    given: Mapping[str, np.ndarray],
    float_nodes: Collection[str],
) -> dict[str, AffineParams]:
    """Parameters of the wanted weights and of the biases of integer nodes; a weight that several nodes read has one
    scale for all."""
    layers = [node for node in graph.nodes if node.op in WEIGHTED and node.inputs[1] in wanted]
    bounds: dict[str, np.ndarray] = {}
    for node in layers:
        if (block := wanted[node.inputs[1]].block) is not None:
            bounds[node.inputs[1]] = _largest_of_blocks(graph.constants[node.inputs[1]], block)
            continue
        bound = _weight_bound(graph, node, params, wanted[node.inputs[1]], given)
        bounds[node.inputs[1]] = np.maximum(bounds.get(node.inputs[1], 0.0), bound)
    for name in (node.inputs[at] for node in graph.nodes if node.op in RECURRENT for at in weight_inputs(node.op)):
        if name in wanted:
            bounds[name] = np.maximum(bounds.get(name, 0.0), _largest(graph, name, given))
    fitted = {name: wanted[name].params(bound) for name, bound in bounds.items()}
    return fitted | {
        name: bias_params(params[node.inputs[0]], fitted[node.inputs[1]])
        for node in layers
        for name in node.inputs[2:]
        if node.inputs[0] in params and node.output not in float_nodes
    }


def _weight_bound(
    graph: Graph, node: Node, params: Mapping[str, AffineParams], grid: _Grid, given: Mapping[str, np.ndarray]
) -> np.ndarray:
    """What each output channel's integers must reach: its largest weight or what is given, or more where its bias or
    the rounding of the result needs that."""
    bound = _largest(graph, node.inputs[1], given)
    source, result = params.get(node.inputs[0]), params.get(node.output)
    if source is None:
        return bound  # a bias beside float activations stays real
    levels = largest_integer(grid.dtype, grid.bits)
    if result is not None:
        bound = np.maximum(bound, _SMALLEST_MULTIPLIER * result.step * levels / source.step)
    for name in node.inputs[2:]:
        bias = np.abs(graph.constants[name].astype(np.float64))
        bound = np.maximum(bound, bias * levels / (source.step * _BIAS_HEADROOM))
    return bound


def _largest(graph: Graph, name: str, given: Mapping[str, np.ndarray]) -> np.ndarray:
    """The largest magnitude of a weight, or what is given, for each output channel."""
    weight = graph.constants[name]
    bound: np.ndarray = np.abs(weight.reshape(len(weight), -1)).max(axis=1).astype(np.float64)
    bound = np.broadcast_to(given.get(name, bound), bound.shape)
    spread: np.ndarray = np.maximum(bound, bound.max() * _SCALE_SPREAD)
    return spread


def _largest_of_blocks(weight: np.ndarray, block: int) -> np.ndarray:
    """(O, K / block): bounds of whole channels say nothing of these, biases beside float activations ask nothing."""
    largest: np.ndarray = np.abs(weight.reshape(len(weight), -1, block)).max(axis=2).astype(np.float64)
    return largest


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
    read = (node.inputs[at] for node in graph.nodes for at in weight_inputs(node.op))
    weights = {name for name in read if graph.is_constant(name)}
    constants = dict(graph.constants)
    copies: dict[str, str] = {}

    def untied(node: Node) -> Node:
        for name in node.inputs:
            if name in weights and name not in copies and not weight_inputs(node.op):
                copies[name] = unique_name(name, constants)
                constants[copies[name]] = constants[name]
        names = node.inputs if weight_inputs(node.op) else tuple(copies.get(name, name) for name in node.inputs)
        return replace(node, inputs=names)

    return graph.with_nodes([untied(node) for node in graph.nodes], constants)
