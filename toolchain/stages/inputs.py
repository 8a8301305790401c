"""What a graph takes, as a sample set checks it."""

from __future__ import annotations

from toolchain.graph import Graph
from toolchain.samples import InputType


def input_types(graph: Graph) -> tuple[InputType, ...]:
    """Name, shape and dtype of each input of `graph`, in order."""
    return tuple(InputType(value.name, value.type.shape, value.type.dtype.numpy) for value in graph.inputs)
