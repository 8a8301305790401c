"""Which integer type each activation has, in a graph where some nodes compute on int16 and the others on int8.

A node computes on one type: the one chosen for it, else that of what it moves or selects from, else the scheme's. A
tensor has the type of the node that makes it. Where a node reads a tensor of another type, a `requantize` stands
between, one for all readers of that type; a constant that nodes of two types read becomes two. So it does where float
and integer nodes read what a float node makes: the float ones read it as it is, unrounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from toolchain.graph import WEIGHTED, DType, Graph, Node, Op
from toolchain.graph.graph import unique_name
from toolchain.quantization.ranges import Ranges, range_of
from toolchain.quantization.rules import QUANTIZATION_RULES, Kind
from toolchain.quantization.scheme import NUMBERS, NumberFormat


@dataclass(frozen=True)
class Draft:
    """A graph on its way to parameters: ranges and integer types of its tensors, and its float nodes with their
    reasons."""

    graph: Graph
    ranges: Ranges
    float_nodes: Mapping[str, str]
    dtypes: Mapping[str, DType]

    def with_nodes(self, nodes: list[Node], copies: Mapping[str, str]) -> Draft:
        """With other nodes; `copies` maps each new tensor to the one whose range and type it has."""
        ranges = {**self.ranges, **{new: range_of(self.graph, self.ranges, old) for new, old in copies.items()}}
        dtypes = {**self.dtypes, **{new: self.dtypes[old] for new, old in copies.items() if old in self.dtypes}}
        return replace(self, graph=self.graph.with_nodes(nodes), ranges=ranges, dtypes=dtypes)


def node_dtypes(graph: Graph, default: DType, numbers: Mapping[str, NumberFormat]) -> dict[str, DType]:
    """Output of each node -> the type it computes on were it an integer node."""
    found: dict[str, DType] = {}
    for node in graph.nodes:
        chosen = NUMBERS[numbers[node.output]].activation if node.output in numbers else None
        follows = QUANTIZATION_RULES[node.op].kind in (Kind.SHARED, Kind.EXACT)
        given = [found.get(name, default) for name in node.inputs] if follows else []
        found[node.output] = chosen or (DType.INT16 if DType.INT16 in given else default)
    return found


def separate_dtypes(
    graph: Graph,
    ranges: Ranges,
    float_nodes: Mapping[str, str],
    default: DType,
    numbers: Mapping[str, NumberFormat],
) -> Draft:
    """The draft in which every integer node reads tensors of its own type."""
    of_node = node_dtypes(graph, default, numbers)
    stays_real = {name for name in float_nodes if any(n.output in float_nodes for n in graph.consumers.get(name, ()))}
    dtypes = _tensor_dtypes(graph, of_node, float_nodes, default)
    copies: dict[tuple[str, DType], str] = {}
    constants, extended = dict(graph.constants), dict(ranges)
    nodes: list[Node] = []
    taken = set(graph.types)
    for node in graph.nodes:
        renamed = {}
        for name in dict.fromkeys(_typed_inputs(graph, node, float_nodes)):
            wanted = of_node[node.output]
            if dtypes.setdefault(name, wanted) is wanted and name not in stays_real:
                continue
            if (name, wanted) not in copies:
                copy = copies[name, wanted] = unique_name(f"{name}.{wanted.value}", taken)
                taken.add(copy)
                dtypes[copy] = wanted
                if name in constants:
                    constants[copy] = constants[name]
                else:
                    extended[copy] = ranges[name]
                    nodes.append(Node(Op.REQUANTIZE, node.name, (name,), (copy,), {}, node.source))
            renamed[name] = copies[name, wanted]
        nodes.append(replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)))
    return Draft(graph.with_nodes(nodes, constants) if copies else graph, extended, float_nodes, dtypes)


def _tensor_dtypes(
    graph: Graph, of_node: Mapping[str, DType], float_nodes: Mapping[str, str], default: DType
) -> dict[str, DType]:
    """Type of every real activation: its maker's; of a float node's result, the widest of its readers'; of an input,
    the scheme's."""
    found: dict[str, DType] = {}
    for name in graph.activations:
        if not graph.is_real(name):
            continue
        if name in graph.producers and name not in float_nodes:
            found[name] = of_node[name]
        else:
            readers = [of_node[n.output] for n in graph.consumers.get(name, ()) if n.output not in float_nodes]
            is_wide = name in graph.producers and DType.INT16 in readers
            found[name] = DType.INT16 if is_wide else default
    return found


def _typed_inputs(graph: Graph, node: Node, float_nodes: Mapping[str, str]) -> Iterator[str]:
    """What an integer node reads of the type it computes on; weights and biases have their own."""
    if node.output in float_nodes or not graph.is_real(node.output):
        return
    for name in node.inputs[:1] if node.op in WEIGHTED else node.inputs:
        if graph.is_real(name):
            yield name
