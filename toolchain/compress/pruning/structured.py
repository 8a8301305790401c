"""Channel pruning: decide (`plan_pruning`, a printable value), then touch (`apply`).

Each group loses the `floor(ratio * size)` channels that matter least to it; what is kept is at least one
channel and is rounded up to a multiple of `round_to`, the device's vector width. Removing channels shrinks
the layers that make them and those that read them, so that halving every group leaves about a quarter of the
multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from toolchain.compress.channels.cut import Removed, cut_graph, cut_structure, removed_indices, shapes_after
from toolchain.compress.channels.groups import ChannelGroup, find_groups
from toolchain.compress.pruning.importance import (
    IMPORTANCES,
    NEEDS_SAMPLES,
    Evidence,
    Importance,
    measure_magnitudes,
)
from toolchain.compress.tables import format_table
from toolchain.errors import OptionError
from toolchain.graph import Graph, Structure, TensorType
from toolchain.graph.cost import COST_RULES


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """What happens to one group: `kept` are its channels that stay, ascending; `scores (size,)` their
    importance.

    The savings are those this group adds to the groups before it, so that they sum up to the plan's.
    """

    group: ChannelGroup
    kept: np.ndarray
    scores: np.ndarray
    macs_saved: int = 0
    parameters_saved: int = 0

    def facts(self) -> dict[str, Any]:
        changed = len(self.kept) < self.group.size
        return {
            "name": self.group.name,
            "channels": [self.group.size, len(self.kept)],
            "kept": self.kept.tolist() if changed else "all",
            "why": self.group.reason,
            "macs_saved": self.macs_saved,
            "parameters_saved": self.parameters_saved,
        }

    def row(self) -> tuple[str, ...]:
        channels = f"{self.group.size} -> {len(self.kept)}"
        if not self.group.prunable:
            return (self.group.name, f"{self.group.size}", "", "", f"kept: {self.group.reason}")
        return (self.group.name, channels, f"{self.macs_saved:,}", f"{self.parameters_saved:,}", "")


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """What goes, why and what it saves. MACs and parameters are (before, after)."""

    importance: Importance
    ratio: float
    round_to: int
    groups: tuple[GroupPlan, ...]
    macs: tuple[int, int]
    parameters: tuple[int, int]

    @cached_property
    def removed(self) -> Removed:
        """The indices that go, by (tensor, axis)."""
        return removed_indices((g.group, g.kept) for g in self.groups)

    def facts(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "importance": self.importance.value,
            "ratio": self.ratio,
            "round_to": self.round_to,
            "macs": list(self.macs),
            "parameters": list(self.parameters),
            "groups": [group.facts() for group in self.groups],
        }

    def __str__(self) -> str:
        title = f"prune {self.ratio:.0%} of the channels by {self.importance}, rounded up to {self.round_to}"
        total = ("total", "", *(f"{a:,} -> {b:,}" for a, b in (self.macs, self.parameters)), "")
        header = ("group", "channels", "MACs saved", "parameters saved", "")
        return f"{title}\n{format_table(header, [*(g.row() for g in self.groups), total])}"


def plan_pruning(
    graph: Graph,
    *,
    ratio: float,
    importance: Importance = Importance.PATH,
    round_to: int = 1,
    batches: Iterable[Sequence[np.ndarray]] | None = None,
    seed: int = 0,
) -> PruningPlan:
    """Which channels of `graph` go. `batches` of the graph's inputs are what `contribution` measures on.

    Raises OptionError where `contribution` has none.
    """
    groups = find_groups(graph)
    evidence = Evidence(seed=seed)
    if importance in NEEDS_SAMPLES:
        if batches is None:
            hint = "give samples, or take importance 'path', which needs none"
            raise OptionError(f"importance {importance.value!r} is measured on samples, and there are none", hint=hint)
        evidence = replace(evidence, magnitudes=measure_magnitudes(graph, _prunable(groups), batches))
    planned = []
    for group in groups:
        scores = IMPORTANCES[importance](graph, group, evidence) if group.prunable else np.zeros(group.size)
        kept = kept_count(group.size, ratio, round_to) if group.prunable else group.size
        planned.append(GroupPlan(group, best_channels(scores, kept), scores))
    return _with_costs(graph, PruningPlan(importance, ratio, round_to, tuple(planned), (0, 0), (0, 0)))


def apply(plan: PruningPlan, graph: Graph) -> Graph:
    """`graph` without the channels that `plan` removes."""
    return cut_graph(graph, plan.removed)


def apply_structure(plan: PruningPlan, structure: Structure) -> Structure:
    """The masks and codebooks of the graph that `apply` gives."""
    return cut_structure(structure, plan.removed)


def kept_count(size: int, ratio: float, round_to: int) -> int:
    """How many of `size` channels stay: at least one, a multiple of `round_to` where `size` is not
    smaller."""
    wanted = max(size - int(ratio * size + 1e-9), 1)
    return min(-(-wanted // round_to) * round_to, size)


def _prunable(groups: Iterable[ChannelGroup]) -> list[ChannelGroup]:
    return [group for group in groups if group.prunable]


def best_channels(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` channels with the highest scores, ascending; of equals the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _with_costs(graph: Graph, plan: PruningPlan) -> PruningPlan:
    """The plan with its savings, from shapes alone: nothing is cut to find out."""
    costs = [_cost(graph, {})]
    for end in range(1, len(plan.groups) + 1):
        if len(plan.groups[end - 1].kept) == plan.groups[end - 1].group.size:
            costs.append(costs[-1])
        else:
            costs.append(_cost(graph, removed_indices((g.group, g.kept) for g in plan.groups[:end])))
    groups = [
        replace(g, macs_saved=before[0] - after[0], parameters_saved=before[1] - after[1])
        for g, (before, after) in zip(plan.groups, pairwise(costs), strict=True)
    ]
    (macs, parameters), (macs_after, parameters_after) = costs[0], costs[-1]
    return replace(plan, groups=tuple(groups), macs=(macs, macs_after), parameters=(parameters, parameters_after))


def _cost(graph: Graph, removed: Removed) -> tuple[int, int]:
    """Multiply-accumulates and parameters of the graph without the indices."""
    shapes = shapes_after(graph, removed)
    types = {name: TensorType(graph.types[name].dtype, shape) for name, shape in shapes.items()}
    macs = sum(COST_RULES[n.op](n, [types[i] for i in n.inputs], types[n.output]) for n in graph.nodes)
    return macs, sum(types[name].elements for name in graph.constants)
