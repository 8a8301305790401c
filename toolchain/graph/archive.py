"""A graph as plain values (for JSON) and arrays (for safetensors), and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.graph.graph import Graph
from toolchain.graph.node import Node
from toolchain.graph.ops import Op
from toolchain.graph.structure import Codebook, Structure
from toolchain.graph.types import Attribute, DType, Source, TensorType, Value


def graph_to_plain(graph: Graph) -> dict[str, Any]:
    """Everything but the constants' values, as JSON takes it."""
    return {
        "inputs": [[v.name, v.type.dtype.value, list(v.type.shape)] for v in graph.inputs],
        "outputs": list(graph.outputs),
        "constants": list(graph.constants),
        "nodes": [_node_to_plain(node) for node in graph.nodes],
    }


def graph_from_plain(plain: Mapping[str, Any], constants: Mapping[str, np.ndarray]) -> Graph:
    """The graph that `graph_to_plain` described, with these constants."""
    inputs = tuple(Value(name, TensorType(DType(dtype), tuple(shape))) for name, dtype, shape in plain["inputs"])
    nodes = tuple(_node_from_plain(node) for node in plain["nodes"])
    return Graph(inputs, tuple(plain["outputs"]), nodes, {name: constants[name] for name in plain["constants"]})


def _node_to_plain(node: Node) -> dict[str, Any]:
    return {
        "op": node.op.value,
        "name": node.name,
        "inputs": list(node.inputs),
        "outputs": list(node.outputs),
        "attributes": {k: list(v) if isinstance(v, tuple) else v for k, v in node.attributes.items()},
        "source": [node.source.module, node.source.file, node.source.line],
    }


def _node_from_plain(plain: Mapping[str, Any]) -> Node:
    attributes: dict[str, Attribute] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in plain["attributes"].items()
    }
    inputs, outputs = tuple(plain["inputs"]), tuple(plain["outputs"])
    return Node(Op(plain["op"]), plain["name"], inputs, outputs, attributes, Source(*plain["source"]))


def structure_to_arrays(structure: Structure) -> dict[str, np.ndarray]:
    """Masks and codebooks under names of their own."""
    arrays = {f"mask/{name}": mask for name, mask in structure.masks.items()}
    for name, book in structure.codebooks.items():
        arrays |= {f"codebook/{name}": book.values, f"index/{name}": book.indices}
        if len(book.sizes) > 1:
            arrays[f"sizes/{name}"] = np.array(book.sizes, np.int32)
    return arrays


def structure_from_arrays(arrays: Mapping[str, np.ndarray]) -> Structure:
    """What `structure_to_arrays` gave, among other arrays."""
    masks = {name[5:]: array for name, array in arrays.items() if name.startswith("mask/")}
    names = [name[9:] for name in arrays if name.startswith("codebook/")]
    sizes = {name: tuple(arrays.get(f"sizes/{name}", np.zeros(0, np.int32)).tolist()) for name in names}
    books = {name: Codebook(arrays[f"codebook/{name}"], arrays[f"index/{name}"], sizes[name]) for name in names}
    return Structure(masks, books)
