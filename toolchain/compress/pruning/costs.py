"""What a ratio is a share of: channels or weights (`count`), MACs, parameters, bytes or latency.

    bytes      1 for an element of a weight, 4 for one of any other constant: what an int8 file holds of them
    latency    ms, by a model fitted to measurements of the same network (`latency`)

All follow from the nodes and the shapes of tensors alone: nothing is cut to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from toolchain.compress.channels.cut import Removed, shapes_after
from toolchain.compress.pruning.choices import Measure
from toolchain.graph import Graph, TensorType, weight_inputs
from toolchain.graph.cost import COST_RULES

Types: TypeAlias = Mapping[str, TensorType]
Cost: TypeAlias = Callable[[Graph, Types], float]
"""(nodes and constants, shapes that these get) -> cost."""


def count_macs(graph: Graph, types: Types) -> int:
    """Multiply-accumulates of one run."""
    return sum(COST_RULES[n.op](n, [types[i] for i in n.inputs], types[n.output]) for n in graph.nodes)


def count_parameters(graph: Graph, types: Types) -> int:
    """Elements of all constants."""
    return sum(types[name].elements for name in graph.constants)


def count_bytes(graph: Graph, types: Types) -> int:
    """Bytes of the constants in an int8 file."""
    weights = {node.inputs[at] for node in graph.nodes for at in weight_inputs(node.op)}
    return sum(types[name].elements * (1 if name in weights else 4) for name in graph.constants)


COSTS: dict[Measure, Cost] = {
    Measure.MACS: count_macs,
    Measure.PARAMETERS: count_parameters,
    Measure.BYTES: count_bytes,
}


def types_after(graph: Graph, removed: Removed) -> dict[str, TensorType]:
    """Type of every tensor once the indices are gone."""
    shapes = shapes_after(graph, removed)
    return {name: TensorType(graph.types[name].dtype, shape) for name, shape in shapes.items()}
