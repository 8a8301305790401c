"""Channel pruning: decide (`plan_pruning`, a printable value), then touch (`apply`).

Each group loses the channels that matter least to it; how many is a matter of `selection`. Removing channels shrinks
the layers that make them and those that read them, so that halving every group leaves about a quarter of the
multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from toolchain.compress.channels.cut import Removed, cut_graph, cut_structure, removed_indices
from toolchain.compress.channels.groups import ChannelGroup, find_groups
from toolchain.compress.pruning.choices import Importance, Measure, Scope
from toolchain.compress.pruning.costs import COSTS, Cost, count_bytes, count_macs, count_parameters, types_after
from toolchain.compress.pruning.evidence import Evidence, measure_changes, measure_moments
from toolchain.compress.pruning.importance import COMMENSURABLE, IMPORTANCES, Needs, readers
from toolchain.compress.pruning.selection import (
    best_channels,
    give_back,
    global_counts,
    least_share,
    local_counts,
    normalised,
)
from toolchain.compress.tables import format_table
from toolchain.errors import OptionError
from toolchain.graph import Graph, Structure
from toolchain.samples import Batch


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


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a plan: the share `ratio` of the measure `of` goes, chosen by `importance` within `scope`.

    `cost` is needed for latency. `original` are sizes of groups, by name, that the share of a local count is taken of
    where channels have gone before, and `budget` the cost to come down to where that is not (1 - ratio) of the present
    one.
    """

    ratio: float
    importance: Importance = Importance.PATH
    scope: Scope = Scope.LOCAL
    of: Measure = Measure.COUNT
    round_to: int = 1
    seed: int = 0
    cost: Cost | None = None
    original: Mapping[str, int] = field(default_factory=dict)
    budget: float | None = None

    def title(self, things: str = "channels") -> str:
        what = things if self.of is Measure.COUNT else f"{self.of.value.replace('macs', 'MACs')} in {things}"
        everywhere = ", wherever they matter least" if self.scope is Scope.GLOBAL else ""
        return f"prune {self.ratio:.0%} of the {what} by {self.importance}{everywhere}"


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """What goes, why and what it saves. MACs, parameters, bytes (of an int8 file) and predicted ms are (before,
    after)."""

    request: Request
    groups: tuple[GroupPlan, ...]
    macs: tuple[int, int] = (0, 0)
    parameters: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    latency_ms: tuple[float, float] | None = None

    @cached_property
    def removed(self) -> Removed:
        """The indices that go, by (tensor, axis)."""
        return removed_indices((g.group, g.kept) for g in self.groups)

    @property
    def reached(self) -> bool:
        """Whether what the ratio is of comes down as far as was asked for."""
        pairs = {Measure.MACS: self.macs, Measure.PARAMETERS: self.parameters, Measure.BYTES: self.bytes}
        pair = self.latency_ms if self.request.of is Measure.LATENCY else pairs.get(self.request.of)
        return pair is None or pair[1] <= (1 - self.request.ratio) * pair[0] * (1 + 1e-9)

    def facts(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        predicted = {} if self.latency_ms is None else {"latency_ms": list(self.latency_ms)}
        return {
            "importance": self.request.importance.value,
            "ratio": self.request.ratio,
            "of": self.request.of.value,
            "scope": self.request.scope.value,
            "round_to": self.request.round_to,
            "reached": self.reached,
            "macs": list(self.macs),
            "parameters": list(self.parameters),
            "bytes": list(self.bytes),
            **predicted,
            "groups": [group.facts() for group in self.groups],
        }

    def __str__(self) -> str:
        title = f"{self.request.title()}, rounded up to {self.request.round_to}"
        if self.latency_ms is not None:
            title += "; predicted {:.3g} ms -> {:.3g} ms".format(*self.latency_ms)
        if not self.reached:
            title += "; no more can go"
        total = ("total", "", *(f"{a:,} -> {b:,}" for a, b in (self.macs, self.parameters)), "")
        header = ("group", "channels", "MACs saved", "parameters saved", "")
        return f"{title}\n{format_table(header, [*(g.row() for g in self.groups), total])}"


def plan_pruning(
    graph: Graph,
    *,
    ratio: float,
    importance: Importance = Importance.PATH,
    scope: Scope = Scope.LOCAL,
    of: Measure = Measure.COUNT,
    round_to: int = 1,
    batches: Iterable[Batch] | None = None,
    seed: int = 0,
    cost: Cost | None = None,
) -> PruningPlan:
    """Which channels of `graph` go; see `Request`. `batches` of the graph's inputs, with labels if there are any, are
    what importances measure on.

    Raises OptionError where the importance has none.
    """
    request = Request(
        ratio=ratio, importance=importance, scope=scope, of=of, round_to=round_to, seed=seed, cost=cost
    )  # fmt: skip
    return plan_channels(graph, request, batches)


def plan_channels(graph: Graph, request: Request, batches: Iterable[Batch] | None = None) -> PruningPlan:
    """The plan for a `request`; the rest as in `plan_pruning`."""
    groups = find_groups(graph)
    prunable = [group for group in groups if group.prunable]
    evidence = channel_evidence(graph, prunable, request, batches)
    rule = IMPORTANCES[request.importance].channels
    scores = [rule(graph, group, evidence) if group.prunable else np.zeros(group.size) for group in groups]
    counts = _counts(graph, request, groups, scores)
    planned = [
        GroupPlan(group, best_channels(s, count), s) for group, s, count in zip(groups, scores, counts, strict=True)
    ]
    return with_costs(graph, PruningPlan(request, tuple(planned)))


def channel_evidence(
    graph: Graph, groups: Sequence[ChannelGroup], request: Request, batches: Iterable[Batch] | None
) -> Evidence:
    """What the importance of channels must know, measured. Raises OptionError where there are no samples for it."""
    needs = IMPORTANCES[request.importance].needs
    if needs is Needs.NOTHING:
        return Evidence(seed=request.seed)
    batches = needed(batches, request.importance)
    if needs is Needs.MOMENTS:
        wanted = ((r.place.tensor, r.place.axis) for group in groups for r in readers(graph, group))
        return Evidence(moments=measure_moments(graph, wanted, batches), seed=request.seed)
    return measure_changes(
        graph, groups, batches, each_sample=needs is Needs.SAMPLE_CHANGES, seed=request.seed
    )  # fmt: skip


def needed(batches: Iterable[Batch] | None, importance: Importance) -> Iterable[Batch]:
    """`batches`; raises OptionError where there are none."""
    if batches is None:
        hint = "give samples, or take importance 'path' (of single weights 'l1'), which needs none"
        raise OptionError(f"importance {importance.value!r} is measured on samples, and there are none", hint=hint)
    return batches


def _counts(
    graph: Graph, request: Request, groups: Sequence[ChannelGroup], scores: Sequence[np.ndarray]
) -> list[int]:  # fmt: skip
    if request.scope is Scope.GLOBAL:
        comparable = scores if request.importance in COMMENSURABLE else [normalised(s) for s in scores]
        counts = global_counts(groups, comparable, request.round_to, request.original)
    else:
        counts = local_counts(groups, request.round_to, request.original)
    if request.of is Measure.COUNT and request.budget is None:
        return counts(request.ratio)
    cost = _cost_of(request)

    def cost_after(kept: list[int]) -> float:
        # which channels go makes no difference to shapes
        choices = ((group, np.arange(count)) for group, count in zip(groups, kept, strict=True))
        return cost(graph, types_after(graph, removed_indices(choices)))

    budget = (1 - request.ratio) * cost(graph, graph.types) if request.budget is None else request.budget
    kept = counts(least_share(counts, cost_after, budget))
    return give_back(groups, scores, kept, request.round_to, lambda more: cost_after(more) <= budget)


def _cost_of(request: Request) -> Cost:
    cost = request.cost if request.of is Measure.LATENCY else COSTS.get(request.of)
    if cost is None:
        raise OptionError("latency is predicted by a model of the device, and there is none", hint="give cost=")
    return cost


def apply(plan: PruningPlan, graph: Graph) -> Graph:
    """`graph` without the channels that `plan` removes."""
    return cut_graph(graph, plan.removed)


def apply_structure(plan: PruningPlan, structure: Structure) -> Structure:
    """The masks and codebooks of the graph that `apply` gives."""
    return cut_structure(structure, plan.removed)


def with_costs(graph: Graph, plan: PruningPlan) -> PruningPlan:
    """The plan with its savings, from shapes alone: nothing is cut to find out."""
    types = [types_after(graph, {})]
    for end, group in enumerate(plan.groups, 1):
        same = len(group.kept) == group.group.size
        done = ((g.group, g.kept) for g in plan.groups[:end])
        types.append(types[-1] if same else types_after(graph, removed_indices(done)))
    macs, parameters, sizes = (
        [count(graph, t) for t in types] for count in (count_macs, count_parameters, count_bytes)
    )
    groups = [
        replace(g, macs_saved=m - n, parameters_saved=p - q)
        for g, (m, n), (p, q) in zip(plan.groups, pairwise(macs), pairwise(parameters), strict=True)
    ]
    cost = plan.request.cost
    return replace(
        plan,
        groups=tuple(groups),
        macs=(macs[0], macs[-1]),
        parameters=(parameters[0], parameters[-1]),
        bytes=(sizes[0], sizes[-1]),
        latency_ms=None if cost is None else (cost(graph, types[0]), cost(graph, types[-1])),
    )
