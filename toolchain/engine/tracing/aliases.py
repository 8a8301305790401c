"""Which values of an exported program lie in the same memory, so that a write in place reaches all that torch's would.

The tensors of one memory are a tree: its root was made, every other is its parent seen otherwise (a slice, a permute, a
reshape that torch makes without copying) or its parent itself (the result of an in-place op). What a tensor shows of
the root is an array of places, `root.flat[places]`. A write to one tensor puts the new values at its places of the
root, and every other tensor that is read later is made anew from its parent.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.images import take
from toolchain.engine.tracing.rules.indexing import overwrite
from toolchain.engine.tracing.rules.shape import permute

_HANDED_ON = frozenset({"dropout", "feature_dropout", "alpha_dropout", "detach", "alias", "lift_fresh"})
"""Ops that give back their argument itself in eval mode."""


@dataclass(frozen=True)
class _Member:
    """A tensor that lies in the memory of its parent, of which it is a view or, else, which it is."""

    node: fx.Node
    parent: fx.Node
    is_view: bool


class Aliases:
    """Grows with the nodes that have been seen, in the program's order."""

    def __init__(self, graph: fx.Graph, views: Collection[str]) -> None:
        self._order = {node: index for index, node in enumerate(graph.nodes)}
        self._views = views
        self._members: dict[fx.Node, _Member] = {}

    def see(self, node: fx.Node, name: str, *, in_place: bool) -> None:
        """Note `node`, an op called `name`; its first argument is what it may be a view of, or writes to."""
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            return
        if in_place or name in _HANDED_ON:
            self._members[node] = _Member(node, source, is_view=False)
        elif node.target is operator.getitem:
            if source in self._members:
                self._members[node] = _Member(node, source, is_view=True)
        elif name in self._views and _shares_memory(node):
            self._members[node] = _Member(node, source, is_view=True)

    def write(
        self, node: fx.Node, result: str, values: dict[fx.Node, Any], b: GraphBuilder, lower: Callable[[fx.Node], Any]
    ) -> None:
        """Change in `values` all that the in-place op `node`, whose target becomes `result`, changes; `lower` makes a
        view anew from its parent's value. Raises CannotLower where a place of the target is written to twice."""
        target = self._members[node].parent
        root = self._root(target)
        members = [member for member in self._members.values() if self._root(member.node) is root]
        while target in self._members and not self._members[target].is_view:
            target = self._members[target].parent  # the first that it is
        same = {target} | {m.node for m in members if self._is(m.node, target)}
        needed = self._read_later(root, members, node) - same
        values.update(dict.fromkeys(same, result))
        if not needed:
            return
        if root not in same:
            shape = b.shapes[values[root]]
            places = self._places(target, root, shape)
            values[root] = put(b, values[root], places, b.cast(result, b.types[values[root]].dtype))
        for member in members:
            if member.node in needed and member.node not in same:
                values[member.node] = lower(member.node) if member.is_view else values[member.parent]

    def _root(self, node: fx.Node) -> fx.Node:
        while node in self._members:
            node = self._members[node].parent
        return node

    def _is(self, node: fx.Node, other: fx.Node) -> bool:
        """Whether `node` came of `other` by nothing but in-place ops and ops that hand on their argument."""
        while node is not other:
            member = self._members.get(node)
            if member is None or member.is_view:
                return False
            node = member.parent
        return True

    def _read_later(self, root: fx.Node, members: list[_Member], after: fx.Node) -> set[fx.Node]:
        """The tensors of a memory that something reads after a node, and those that they are made of."""
        needed: set[fx.Node] = set()
        for node, parent in [*((m.node, m.parent) for m in reversed(members)), (root, None)]:
            if node in needed or any(self._order[user] > self._order[after] for user in node.users):
                needed.add(node)
                if parent is not None:
                    needed.add(parent)
        return needed

    def _places(self, node: fx.Node, root: fx.Node, shape: tuple[int, ...]) -> np.ndarray:
        """What `node` shows of the root, whose shape is given, as flat places."""
        path = []
        while node is not root:
            path.append(self._members[node])
            node = self._members[node].parent
        found: Any = torch.arange(prod(shape)).reshape(shape)
        for member in reversed(path):
            if member.is_view:
                found = _viewed(member.node, found)
        return np.asarray(found)


def _viewed(node: fx.Node, source: Any) -> Any:
    if node.target is operator.getitem:
        return source[node.args[1]]
    assert callable(node.target)
    return node.target(source, *node.args[1:], **node.kwargs)


def _shares_memory(node: fx.Node) -> bool:
    """Whether torch makes the result without a copy, which depends on how the argument lies in memory."""
    example = node.args[0].meta["val"]  # type: ignore[union-attr]
    if not isinstance(example, torch.Tensor) or any(isinstance(arg, fx.Node) for arg in node.args[1:]):
        return isinstance(example, torch.Tensor)
    if any(isinstance(n, torch.SymInt) and not n.node.has_hint() for n in (*example.shape, *example.stride())):
        return True  # a size that torch does not know
    sizes, strides = ([int(n) for n in numbers] for numbers in (example.shape, example.stride()))
    source = torch.empty_strided(sizes, strides, dtype=example.dtype, device="meta")
    result = _viewed(node, source)
    first = result[0] if isinstance(result, (list, tuple)) else result
    return bool(first.untyped_storage()._cdata == source.untyped_storage()._cdata)


def put(b: GraphBuilder, whole: str, places: np.ndarray, part: str) -> str:
    """`whole` with its flat `places` replaced by `part`, which has the shape of `places`."""
    order = list(range(places.ndim))
    if (np.diff(places.reshape(-1)) <= 0).any():
        order.sort(key=lambda axis: -_step(places, axis))  # as the places lie in memory
    flat = places.transpose(order).reshape(-1)
    shape = b.shapes[whole]
    box = [np.unique(column) for column in np.unravel_index(flat, shape)] if shape else []
    if (np.diff(flat) <= 0).any() or prod(len(along) for along in box) != flat.size:
        raise CannotLower("it writes through a view that shows a place twice or lies across: use the out-of-place form")
    part = b.reshape(permute(b, part, order), [len(along) for along in box])
    return _put_box(b, whole, 0, [along.tolist() for along in box], part)


def _step(places: np.ndarray, axis: int) -> int:
    """How far apart neighbours along `axis` lie."""
    return int(places.take(1, axis).flat[0] - places.flat[0]) if places.shape[axis] > 1 else 0


def _put_box(b: GraphBuilder, whole: str, axis: int, box: list[list[int]], part: str) -> str:
    shape = b.shapes[whole]
    while axis < len(shape) and len(box[axis]) == shape[axis]:
        axis += 1
    if axis == len(shape):
        return part
    if all(len(along) == size for along, size in zip(box[axis + 1 :], shape[axis + 1 :], strict=True)):
        return overwrite(b, whole, axis, box[axis], part)
    inner = _put_box(b, take(b, whole, axis, box[axis]), axis + 1, box, part)
    return overwrite(b, whole, axis, box[axis], inner)
