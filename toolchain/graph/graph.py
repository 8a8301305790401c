"""The neutral graph: frozen, in evaluation order, every tensor named once.

    Graph(inputs, outputs, nodes, constants)

A pass takes a Graph and gives another; constants are shared between the two, never copied or written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from toolchain.graph.node import Node
from toolchain.graph.shapes import infer_types
from toolchain.graph.types import TensorType, Value


@dataclass(frozen=True)
class Graph:
    """A model: `inputs` are typed values, `outputs` tensor names, `nodes` in evaluation order.

    `constants` are read-only arrays by name (weights are named as in the user's `state_dict`). Raises ValueError when a
    tensor is used before it is defined or defined twice.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        object.__setattr__(self, "constants", MappingProxyType({k: _frozen(v) for k, v in self.constants.items()}))
        defined = {value.name for value in self.inputs} | set(self.constants)
        if len(defined) != len(self.inputs) + len(self.constants):
            raise ValueError("an input and a constant share a name")
        for node in self.nodes:
            for name in node.inputs:
                if name not in defined:
                    raise ValueError(f"{node.name} ({node.op}) uses {name!r} before it is defined")
            for name in node.outputs:
                if name in defined:
                    raise ValueError(f"{name!r} is defined twice, the second time by {node.name} ({node.op})")
                defined.add(name)
        for name in self.outputs:
            if name not in defined:
                raise ValueError(f"output {name!r} is never defined")

    def __deepcopy__(self, memo: object) -> Graph:
        return self  # nothing of it changes

    @cached_property
    def types(self) -> Mapping[str, TensorType]:
        """Type of every tensor, by the shape rules. Raises UnsupportedError naming the node where shapes clash."""
        return MappingProxyType(infer_types(self.inputs, self.constants, self.nodes))

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        return MappingProxyType({name: node for node in self.nodes for name in node.outputs})

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Nodes that read each tensor, in evaluation order; tensors nobody reads are absent."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return MappingProxyType({name: tuple(nodes) for name, nodes in found.items()})

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.inputs)

    @cached_property
    def activations(self) -> tuple[str, ...]:
        """Names of the tensors that are not constants: inputs, then node outputs in evaluation order."""
        return (*self.input_names, *(name for node in self.nodes for name in node.outputs))

    def is_real(self, name: str) -> bool:
        """Whether a tensor holds real numbers, which can be quantized, and not indices or booleans."""
        return self.types[name].dtype.is_float

    def is_constant(self, name: str) -> bool:
        return name in self.constants

    def only_consumer(self, name: str) -> Node | None:
        """The node that alone reads `name`, if the tensor is read once and is no output of the graph."""
        readers = self.consumers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def with_nodes(self, nodes: Iterable[Node], constants: Mapping[str, np.ndarray] | None = None) -> Graph:
        """The same inputs and outputs with other nodes (and constants); what nobody reads is dropped."""
        return sweep(replace(self, nodes=tuple(nodes), constants=self.constants if constants is None else constants))

    def with_constants(self, changed: Mapping[str, np.ndarray]) -> Graph:
        """The same nodes with some constants exchanged. Raises KeyError for a name the graph does not hold."""
        unknown = set(changed) - set(self.constants)
        if unknown:
            raise KeyError(f"no constants named {sorted(unknown)}")
        return replace(self, constants={**self.constants, **changed})


def sweep(graph: Graph) -> Graph:
    """Drop nodes and constants that no output depends on."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(kept)), constants=constants)


def unique_name(wanted: str, taken: Iterable[str]) -> str:
    """`wanted`, or `wanted_1`, `wanted_2`, ... whichever is not taken."""
    taken = set(taken)
    if wanted not in taken:
        return wanted
    return next(name for index in range(1, len(taken) + 2) if (name := f"{wanted}_{index}") not in taken)


def subgraph(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """The given nodes as a graph of their own: tensors they read become inputs; tensors they define and that anyone
    else reads, or nobody, become outputs."""
    defined = {name for node in nodes for name in node.outputs}
    read = dict.fromkeys(name for node in nodes for name in node.inputs)
    inputs = tuple(Value(n, graph.types[n]) for n in read if n not in defined and n not in graph.constants)
    outside = {name for node in graph.nodes if node not in nodes for name in node.inputs} | set(graph.outputs)
    outputs = tuple(n for node in nodes for n in node.outputs if n not in read or n in outside)
    return sweep(Graph(inputs, outputs, tuple(nodes), graph.constants))


def _frozen(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)  # arithmetic on an array without axes gives a scalar
    if array.flags.writeable or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array).view() if array.ndim else array.view()
        array.flags.writeable = False
    return array
