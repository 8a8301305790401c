"""Cuts channels out: constants lose indices, and the attributes that name sizes follow. Masks and codebooks
too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np

from toolchain.compress.channels.groups import ChannelGroup
from toolchain.graph import Codebook, Graph, Node, Op, Structure
from toolchain.graph.types import Shape

Removed: TypeAlias = Mapping[tuple[str, int], np.ndarray]
"""Indices that go, by (tensor, axis); constants and activations."""


def removed_indices(choices: Iterable[tuple[ChannelGroup, np.ndarray]]) -> dict[tuple[str, int], np.ndarray]:
    """From each group and the channels of it that are kept: what goes where."""
    parts: dict[tuple[str, int], list[np.ndarray]] = {}
    for group, kept in choices:
        gone = np.setdiff1d(np.arange(group.size), kept)
        for key, place in group.places.items() if len(gone) else ():
            parts.setdefault(key, []).append(place.indices[gone].reshape(-1))
    return {key: np.sort(np.concatenate(indices)) for key, indices in parts.items()}


def shapes_after(graph: Graph, removed: Removed) -> dict[str, Shape]:
    """Shape of every tensor once the indices are gone."""
    shapes = {name: list(kind.shape) for name, kind in graph.types.items()}
    for (name, axis), indices in removed.items():
        shapes[name][axis] -= len(indices)
    return {name: tuple(shape) for name, shape in shapes.items()}


def cut_graph(graph: Graph, removed: Removed) -> Graph:
    """`graph` without the indices. Nodes keep their names."""
    shapes = shapes_after(graph, removed)
    nodes = [_REPAIRS.get(node.op, _as_it_is)(node, shapes, removed) for node in graph.nodes]
    return graph.with_nodes(nodes, {name: _cut(array, name, removed) for name, array in graph.constants.items()})


def cut_structure(structure: Structure, removed: Removed) -> Structure:
    """Masks and codebooks of the constants that `cut_graph` makes."""
    masks = {name: _cut(mask, name, removed) for name, mask in structure.masks.items()}
    books = {n: Codebook(b.values, _cut(b.indices, n, removed), b.sizes) for n, b in structure.codebooks.items()}
    return Structure(masks, books)


def _cut(array: np.ndarray, name: str, removed: Removed) -> np.ndarray:
    for axis in range(array.ndim):
        if (name, axis) in removed:
            array = np.delete(array, removed[name, axis], axis)
    return array


Repair: TypeAlias = Callable[[Node, Mapping[str, Shape], Removed], Node]


def _as_it_is(node: Node, shapes: Mapping[str, Shape], removed: Removed) -> Node:
    return node


def _conv2d(node: Node, shapes: Mapping[str, Shape], removed: Removed) -> Node:
    return node.with_attributes(groups=shapes[node.inputs[0]][1] // shapes[node.inputs[1]][1])


def _reshape(node: Node, shapes: Mapping[str, Shape], removed: Removed) -> Node:
    return node.with_attributes(shape=shapes[node.output])


def _slice(node: Node, shapes: Mapping[str, Shape], removed: Removed) -> Node:
    """Each bound moves down by what goes before it; an axis with a step is never cut."""

    def moved(bounds: tuple[int, ...]) -> tuple[int, ...]:
        gone = [removed.get((node.inputs[0], axis), np.zeros(0, np.int64)) for axis in node["axes"]]
        return tuple(bound - int(np.searchsorted(g, bound)) for bound, g in zip(bounds, gone, strict=True))

    return node.with_attributes(starts=moved(node["starts"]), stops=moved(node["stops"]))


_REPAIRS: dict[Op, Repair] = {Op.CONV2D: _conv2d, Op.RESHAPE: _reshape, Op.EXPAND: _reshape, Op.SLICE: _slice}
