"""What the tensors of a file are called: as in the graph, in- and outputs first of all.

A permute that only renames axes leaves no operator, so its input and its result are one tensor of the file,
which can have one name: an output's, where one of them is an output. An output that is moved or dequantized
last has that last tensor under its name, the one before under its name and a suffix.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from toolchain.formats.tflite.layout import plan_moves
from toolchain.formats.tflite.layout_rules import LayoutPlan, output_layout
from toolchain.graph import Graph, Op

INTEGER_SUFFIX = "/integer"
INNER_SUFFIX = "/inner"
PRODUCT_SUFFIX = "/product"
"""Of what a layer makes before an activation that its operator cannot do."""


@dataclass(frozen=True)
class FileNames:
    """`given` names by tensor of the graph, where they differ, and the permutes that must copy."""

    given: Mapping[str, str]
    copied: frozenset[str]

    def of(self, name: str) -> str:
        return self.given.get(name, name)


def plan_names(graph: Graph, plan: LayoutPlan, converted: Collection[str]) -> FileNames:
    """`converted`: tensors that as in- and outputs of the graph are float tensors around integer ones."""
    given: dict[str, str] = {}
    for name in graph.outputs:
        if moves_at_output(graph, plan, name):
            given[name] = name + INNER_SUFFIX
        elif name in converted:
            given[name] = name + INTEGER_SUFFIX
    given |= {name: name + INTEGER_SUFFIX for name in graph.input_names if name in converted}
    taken = set(graph.outputs) | set(graph.input_names)
    copied: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op is not Op.PERMUTE or node.output not in taken:
            continue
        (source,) = node.inputs
        if source in taken:
            copied.add(node.output)
        else:
            taken.add(source)
            given[source] = given.get(node.output, node.output)
    return FileNames(given, frozenset(copied))


def moves_at_output(graph: Graph, plan: LayoutPlan, name: str) -> bool:
    """Whether the output `name` has to change its layout to leave the file."""
    layout = plan.layouts[name]
    return bool(plan_moves(layout, output_layout(layout), graph.types[name].shape))
