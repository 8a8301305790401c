"""The layout of a whole graph, with as few TRANSPOSEs as the rules can be brought to.

A permute costs nothing where its result is read in the order it has. Where several readers each want the other order,
as queries, keys and values do that are cut from one permuted tensor, one TRANSPOSE in front serves them all. A reshape
that has to move elements can bring them into any order, and which is best depends on all that follows. Either is
settled (see `lay_out`) if the file has fewer TRANSPOSEs for it. Where operands of one size lie differently, as weights
of a softmax over time beside what they weigh, either may be moved; which, is often only seen once several such ops have
changed sides, so that what makes no difference is tried further.
"""

from __future__ import annotations

from math import prod

from toolchain.formats.tflite.layout import Layout, identity, plan_moves
from toolchain.formats.tflite.layout_rules import ALIKE, LAYOUT_RULES, LayoutPlan, lay_out, output_layout
from toolchain.graph import Graph, Node, Op


def plan_layouts(graph: Graph) -> LayoutPlan:
    """Lay out every activation of `graph`."""
    plan, settled = lay_out(graph), frozenset[str]()
    fewest = count_transposes(graph, plan)
    for node in graph.nodes:
        if not _is_candidate(graph, plan, node):
            continue
        tried = lay_out(graph, settled | {node.output})
        if (count := count_transposes(graph, tried)) < fewest:
            plan, settled, fewest = tried, settled | {node.output}, count
    return _turn(graph, plan, settled, fewest)


def _turn(graph: Graph, plan: LayoutPlan, settled: frozenset[str], fewest: int) -> LayoutPlan:
    """The best plan on the way through the ops whose operands lie differently."""
    best, lowest, turned = plan, fewest, frozenset[str]()
    for node in graph.nodes:
        if not _operands_differ(graph, plan, node):
            continue
        tried = lay_out(graph, settled, turned | {node.output})
        if (count := count_transposes(graph, tried)) <= fewest:
            plan, turned, fewest = tried, turned | {node.output}, count
        if fewest < lowest:
            best, lowest = plan, fewest
    return best


def _operands_differ(graph: Graph, plan: LayoutPlan, node: Node) -> bool:
    """Whether the largest operands of an elementwise op are several, and lie differently."""
    if len(node.inputs) < 2 or LAYOUT_RULES[node.op] not in ALIKE:
        return False
    names = [name for name in node.inputs if name in plan.layouts]
    sizes = [prod(graph.types[name].shape) for name in names]
    return len({plan.layouts[n] for n, size in zip(names, sizes, strict=True) if size == max(sizes)}) > 1


def _is_candidate(graph: Graph, plan: LayoutPlan, node: Node) -> bool:
    result = plan.layouts[node.output]
    if node.op not in (Op.PERMUTE, Op.RESHAPE) or result == identity(result.rank):
        return False
    wanted = plan.placements[node.output].wanted[0]
    moves = wanted is not None and _transposes(graph, plan, node.inputs[0], wanted) > 0
    return moves or len(graph.consumers.get(node.output, ())) > 1


def count_transposes(graph: Graph, plan: LayoutPlan) -> int:
    """How many changes of layout of the plan move elements; those of one tensor to one layout are made once."""
    changes = {
        (name, wanted)
        for node in graph.nodes
        for name, wanted in zip(node.inputs, plan.placements[node.output].wanted, strict=True)
        if wanted is not None
    }
    changes |= {(name, output_layout(plan.layouts[name])) for name in graph.outputs}
    return sum(_transposes(graph, plan, name, wanted) for name, wanted in changes)


def _transposes(graph: Graph, plan: LayoutPlan, name: str, wanted: Layout) -> int:
    if name not in plan.layouts:
        return 0
    shape = graph.types[name].shape
    expanded = (1,) * (wanted.rank - len(shape)) + shape
    moves = plan_moves(plan.layouts[name].expanded(wanted.rank), wanted, expanded)
    return sum(move.permutation is not None for move in moves)
