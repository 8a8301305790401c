"""Duplicates channels: constants gain indices, and the attributes that name sizes follow; the opposite of `cut`.

A duplicate stands behind its original on every axis: of a flatten, the block of a channel's columns behind the block.
What reads the channels reads both, each with half the weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np

from toolchain.compress.channels.groups import ChannelGroup, Place
from toolchain.graph import Graph, Node, Op, Structure

Orders: TypeAlias = Mapping[tuple[str, int], np.ndarray]
"""For each (tensor, axis) that is widened the old indices in their new order, duplicates twice."""

_READING = frozenset({Op.CONV2D, Op.CONV_TRANSPOSE2D, Op.LINEAR})


def readers_of(graph: Graph, group: ChannelGroup) -> list[tuple[Node, Place]]:
    """The layers that sum over the group's channels, with the place of these on axis 1 of their weight."""
    places = {place.tensor: place for place in group.cuts if place.axis == 1}
    return [(n, places[n.inputs[1]]) for n in graph.nodes if n.op in _READING and n.inputs[1] in places]


def why_not_widened(graph: Graph, group: ChannelGroup, structure: Structure) -> str:
    """Why the channels of a group cannot be duplicated; empty where they can."""
    tensors = {place.tensor for place in group.cuts}
    for node in graph.nodes:
        if node.op in _READING and node.inputs[1] in tensors and node.attributes.get("groups", 1) != 1:
            return f"{node.name} is a grouped convolution"
    if tensors & set(structure.codebooks):
        return "its weights have a codebook, whose values would double"
    read = {place.tensor for _, place in readers_of(graph, group)}
    if any(place.axis == 1 and place.tensor in tensors - read for place in group.cuts):
        return "what reads it is no layer"
    if any(place.axis == 0 and place.indices.shape[1] > 1 for place in group.cuts):
        return "its channels are spread over several of a layer"
    if any(not _is_regular(place.indices) for place in group.places.values()):
        return "its channels lie unevenly"
    return ""


def _is_regular(indices: np.ndarray) -> bool:
    steps = np.diff(indices, axis=1)
    return steps.size == 0 or bool(np.all(steps == steps.flat[0]))


def widening_orders(
    graph: Graph, choices: Iterable[tuple[ChannelGroup, np.ndarray]]
) -> dict[tuple[str, int], np.ndarray]:
    """From each group and the channels of it to duplicate: what goes where."""
    extra: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
    for group, channels in choices:
        for key, place in group.places.items():
            for indices in place.indices[channels]:
                block = len(indices) > 1 and indices[1] == indices[0] + 1
                extra.setdefault(key, []).extend((int(indices[-1]) if block else int(i), 1, int(i)) for i in indices)
    orders = {}
    for (name, axis), added in extra.items():
        kept = [(index, 0, index) for index in range(graph.types[name].shape[axis])]
        orders[name, axis] = np.array([index for _, _, index in sorted([*kept, *added])])
    return orders


def widen_graph(graph: Graph, orders: Orders) -> Graph:
    """`graph` with the duplicates, and layers that read them with halved columns. Nodes keep their names."""
    if not orders:
        return graph
    reading = {node.inputs[1] for node in graph.nodes if node.op in _READING}
    constants = {name: _widened(array, name, orders, halve=name in reading) for name, array in graph.constants.items()}
    return graph.with_nodes([_repaired(graph, node, orders) for node in graph.nodes], constants)


def widen_structure(structure: Structure, orders: Orders) -> Structure:
    """Masks of the constants that `widen_graph` makes; no codebook is ever widened."""
    return structure.with_masks({n: _widened(mask, n, orders, halve=False) for n, mask in structure.masks.items()})


def _widened(array: np.ndarray, name: str, orders: Orders, *, halve: bool) -> np.ndarray:
    for axis in range(array.ndim):
        order = orders.get((name, axis))
        if order is None:
            continue
        array = array.take(order, axis)
        if halve and axis == 1:
            copies = np.bincount(order)[order].reshape([-1 if a == axis else 1 for a in range(array.ndim)])
            array = (array / copies).astype(array.dtype)
    return array


def _repaired(graph: Graph, node: Node, orders: Orders) -> Node:
    if node.op in (Op.RESHAPE, Op.EXPAND):
        shape = [len(orders.get((node.output, axis), range(size))) for axis, size in enumerate(node["shape"])]
        return node.with_attributes(shape=tuple(shape))
    if node.op is Op.SLICE:
        bounds = {key: _moved(node, node[key], orders) for key in ("starts", "stops")}
        return node.with_attributes(**bounds)
    return node


def _moved(node: Node, bounds: tuple[int, ...], orders: Orders) -> tuple[int, ...]:
    """Each bound moves up by the duplicates before it."""
    moved = []
    for axis, bound in zip(node["axes"], bounds, strict=True):
        order = orders.get((node.inputs[0], axis))
        moved.append(bound if order is None else int(np.count_nonzero(order < bound)))
    return tuple(moved)
