"""Which values of an exported program lie in the same memory, so that a write in place reaches all that torch's would.

An in-place op gives a new value to its argument and to every earlier result that *is* that argument (`y = x.relu_()`:
y is x). A view, or an op that may hand on its argument (dropout in eval mode), lies in the same memory but is another
value: reading one after a write through the other cannot be said without the write.
"""

from __future__ import annotations

import operator

from torch import fx

from toolchain.engine.tracing.builder import CannotLower


class Aliases:
    """Grows with the nodes that have been seen, in the program's order."""

    def __init__(self, graph: fx.Graph) -> None:
        self._order = {node: index for index, node in enumerate(graph.nodes)}
        self._memory: dict[fx.Node, fx.Node] = {}
        self._same: dict[fx.Node, fx.Node] = {}

    def see(self, node: fx.Node, *, may_alias: bool, in_place: bool) -> None:
        """Note `node`; its first argument is what it may be a view of, or writes to."""
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and (may_alias or in_place or node.target is operator.getitem):
            self._memory[node] = self._memory.get(source, source)
            if in_place:
                self._same[node] = self._same.get(source, source)

    def written(self, node: fx.Node) -> list[fx.Node]:
        """The values that the in-place op `node` changes. Raises CannotLower where a view of them is read later."""
        target = node.args[0]
        assert isinstance(target, fx.Node)
        memory, same = self._memory.get(target, target), self._same.get(target, target)
        for other in (memory, *(n for n, root in self._memory.items() if root is memory)):
            is_same = self._same.get(other, other) is same
            if not is_same and any(self._order[user] > self._order[node] for user in other.users):
                raise CannotLower("writes in place to what is read later through a view: use the out-of-place form")
        return [same, *(n for n, root in self._same.items() if root is same)]
