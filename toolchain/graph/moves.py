"""Two permutes with a reshape between them as one, between two reshapes.

    y = reshape(permute(reshape(permute(x))))

What both sides of the reshape are made of, the atoms, are factors that the axes of either are products of:
`(6, 4) -> (2, 12)` is made of atoms of 2, 3 and 4. The two permutes together are one of the atoms, as where images are
cut into patches: `(C, h, p, w, q) -> (p, q, h, w, C)` takes torch two permutes, and moves every element twice. A batch
that stays in front stays an axis of its own.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from operator import mul

from toolchain.graph.graph import Graph, unique_name
from toolchain.graph.node import Node
from toolchain.graph.ops import Op
from toolchain.graph.types import Shape

MOST_AXES = 6
"""What kernels permute."""


def merge_permutes(graph: Graph) -> Graph:
    """Every permute of a reshaped permute, which nothing else reads, as one permute."""
    taken = set(graph.types)
    nodes: list[Node] = []
    changed = False
    for node in graph.nodes:
        merged = None if changed else _merged(graph, node, taken)
        changed = changed or merged is not None
        nodes += merged or [node]
    # one at a time: the next one reads what this one has made
    return merge_permutes(graph.with_nodes(nodes)) if changed else graph


def _merged(graph: Graph, node: Node, taken: set[str]) -> list[Node] | None:
    middle = _sole_maker(graph, node, Op.RESHAPE) if node.op is Op.PERMUTE else None
    first = _sole_maker(graph, middle, Op.PERMUTE) if middle is not None else None
    if middle is None or first is None:
        return None
    before, behind = graph.types[first.output].shape, middle["shape"]
    keeps_batch = first["axes"][0] == node["axes"][0] == 0 and before[0] == behind[0]
    atoms = common_factors(before, behind, keep_first=keeps_batch)
    if atoms is None or not 1 < len(atoms) <= MOST_AXES:
        return None
    # which atoms, by their place in the tensor between, each axis before and behind it holds
    of_before, of_behind = (_runs(shape, atoms, keep_first=keeps_batch) for shape in (before, behind))
    stored = [atom for axis in _inverse(first["axes"]) for atom in of_before[axis]]
    wanted = [atom for axis in node["axes"] for atom in of_behind[axis]]
    fine = tuple(atoms[atom] for atom in stored)
    axes = tuple(stored.index(atom) for atom in wanted)
    split, moved = (unique_name(f"{node.output}.{part}", taken) for part in ("split", "moved"))
    taken |= {split, moved}
    return [
        Node(Op.RESHAPE, split, first.inputs, (split,), {"shape": fine}, first.source),
        replace(node, name=moved, inputs=(split,), outputs=(moved,), attributes={"axes": axes}),
        Node(Op.RESHAPE, node.name, (moved,), node.outputs, {"shape": graph.types[node.output].shape}, node.source),
    ]


def _sole_maker(graph: Graph, reader: Node, op: Op) -> Node | None:
    """What makes the input of `reader`, if it is an `op` and nothing else reads it."""
    maker = graph.producers.get(reader.inputs[0])
    return maker if maker is not None and maker.op is op and graph.only_consumer(maker.output) is reader else None


def common_factors(left: Shape, right: Shape, *, keep_first: bool = False) -> Shape | None:
    """The atoms, none of 1, of which the axes of both shapes are products in order; None where there are none. With
    `keep_first` the first axis, which both have, is an atom whatever its size."""
    if keep_first:
        rest = common_factors(left[1:], right[1:])
        return None if rest is None else (left[0], *rest)
    ends = sorted({*accumulate(left, mul), *accumulate(right, mul)} | {1})
    if any(after % before for before, after in pairwise(ends)):
        return None
    return tuple(after // before for before, after in pairwise(ends))


def _runs(shape: Shape, atoms: Shape, *, keep_first: bool) -> list[list[int]]:
    """For each axis, the atoms it is the product of."""
    runs: list[list[int]] = [[0]] if keep_first else []
    at = len(runs)
    for size in shape[at:]:
        start, product = at, 1
        while product < size:
            product *= atoms[at]
            at += 1
        runs.append(list(range(start, at)))
    return runs


def _inverse(axes: Shape) -> list[int]:
    return sorted(range(len(axes)), key=axes.__getitem__)
