"""Factors for the labels of a `ScaleFlow`: what bounds them, what they do to constants and ranges.

Factors are one float64 array `(count,)`, indexed by label; `factors[UNIT]` is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

import numpy as np

from toolchain.compress.equalisation.scale_flow import UNIT, Channels, ScaledUse, compact
from toolchain.graph import Graph, Node, Structure
from toolchain.graph.graph import unique_name
from toolchain.quantization.statistics import channel_axis

ChannelRanges: TypeAlias = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Least and largest value `(C,)` of each channel of each activation, along `channel_axis`."""


@dataclass(frozen=True, eq=False)
class ScaledGraph:
    """`graph` with its constants multiplied; `copies` maps the constants that are new to those they were made from."""

    graph: Graph
    copies: Mapping[str, str]


def copied_structure(before: Structure, copies: Mapping[str, str]) -> Structure:
    """Masks of `before`, those of a constant for its copies too. What has a codebook is never copied."""
    return before.with_masks({new: before.masks[old] for new, old in copies.items() if old in before.masks})


def channel_extent(channels: Channels, name: str, ranges: ChannelRanges) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots, least and largest value of the channels of an activation that was measured, three arrays `(C,)`; where
    labels lie on another axis than was measured, those of the whole tensor for each."""
    low, high = (np.asarray(bound, np.float64) for bound in ranges[name])
    roots = compact(channels.of_tensor(name))
    axis = channel_axis(channels.flow.graph, name)
    if roots.size == roots.shape[axis]:
        return np.broadcast_to(roots.reshape(-1), low.shape), low, high
    flat = roots.reshape(-1)
    return flat, np.full(flat.shape, low.min()), np.full(flat.shape, high.max())


def factor_bounds(channels: Channels, ranges: ChannelRanges | None, headroom: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest log factor `(count,)` of each label. Behind a ceiling a factor may bring a channel's largest
    value times `headroom` up to it; one that comes nearer as it is, or was not measured, keeps factor 1."""
    low, high = np.full(channels.flow.count, -inf), np.full(channels.flow.count, inf)
    fixed = np.zeros(channels.flow.count, bool)
    fixed[UNIT] = True
    for ceiling in channels.flow.ceilings:
        if ranges is None or ceiling.tensor not in ranges:
            fixed[channels.root[ceiling.labels]] = True
            continue
        roots, least, largest = channel_extent(channels, ceiling.tensor, ranges)
        for bound, reached in ((ceiling.high, largest), (-ceiling.low, -least)):
            if bound < inf:
                room = np.log(bound) - np.log(np.maximum(reached * headroom, bound * 1e-30))
                fixed[roots[room <= 0]] = True
                np.minimum.at(high, roots, np.maximum(room, 0.0))
    low[fixed] = high[fixed] = 0.0
    return low, high


def scaled_value(channels: Channels, use: ScaledUse, factors: np.ndarray) -> np.ndarray:
    """The constant of `use` after scaling, float64."""
    value = channels.flow.graph.constants[use.constant].astype(np.float64)
    up, down = (factors[channels.root[labels]] for labels in (use.up, use.down))
    return np.asarray(value * up / down)


def apply_factors(channels: Channels, factors: np.ndarray) -> ScaledGraph:
    """The graph with every constant of the flow multiplied. What several nodes read and is no longer the same for all
    becomes a constant for each value."""
    graph = channels.flow.graph
    constants, copies = dict(graph.constants), {}
    made: dict[str, list[tuple[str, np.ndarray]]] = {}
    inputs = {node.output: list(node.inputs) for node in graph.nodes}
    readers = _read_elsewhere(graph, channels)
    for use in channels.flow.uses:
        value = scaled_value(channels, use, factors).astype(np.float32)
        known = made.setdefault(
            use.constant, [(use.constant, graph.constants[use.constant])] if use.constant in readers else []
        )
        name = next((n for n, other in known if np.array_equal(other, value)), None)
        if name is None:
            name = unique_name(use.constant, constants) if known else use.constant
            known.append((name, value))
            constants[name] = value
            if name != use.constant:
                copies[name] = use.constant
        inputs[use.node.output][use.position] = name
    nodes = [_reading(node, inputs[node.output]) for node in graph.nodes]
    return ScaledGraph(graph.with_nodes(nodes, constants), copies)


def _read_elsewhere(graph: Graph, channels: Channels) -> set[str]:
    """Constants that are also read where the flow does not scale them."""
    scaled = {(use.node.output, use.position) for use in channels.flow.uses}
    read = {
        name
        for node in graph.nodes
        for position, name in enumerate(node.inputs)
        if graph.is_constant(name) and (node.output, position) not in scaled
    }
    return read | set(graph.outputs)


def _reading(node: Node, inputs: list[str]) -> Node:
    return node if list(node.inputs) == inputs else replace(node, inputs=tuple(inputs))


def rescale_ranges(channels: Channels, factors: np.ndarray, ranges: ChannelRanges) -> ChannelRanges:
    """The channel ranges of the scaled graph, without measuring it again; exact where labels lie on the measured
    axis."""
    found = dict(ranges)
    for name in ranges:
        roots = compact(channels.of_tensor(name))
        axis = channel_axis(channels.flow.graph, name)
        factor = factors[roots.reshape(-1)] if roots.size == roots.shape[axis] else factors[roots].max()
        low, high = ranges[name]
        found[name] = (low * factor, high * factor)
    return found
