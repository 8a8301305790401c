"""Channels masked wherever they lie, to be cut out later: a masked channel gives zeros, and nobody reads it.

Its weights, biases, batch-norm scales and offsets are masked, and the columns that read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from toolchain.compress.channels.groups import ChannelGroup, Place, find_groups
from toolchain.compress.pruning.importance import IMPORTANCES
from toolchain.compress.pruning.selection import best_channels, kept_count
from toolchain.compress.pruning.structured import (
    GroupPlan,
    PruningPlan,
    Request,
    channel_evidence,
    plan_channels,
    with_costs,
)
from toolchain.graph import Graph, Op
from toolchain.samples import Batch


class ChannelMasker:
    """Follows a graph whose weights move: which channels go when, those that are gone stay gone.

    How many each group loses in the end is settled at the start; all else is in the masks, so that a training that was
    killed goes on as it would have.
    """

    def __init__(self, graph: Graph, request: Request, batches: Iterable[Batch] | None) -> None:
        given = None if batches is None else list(batches)
        self._request = request
        self._final = plan_channels(graph, request, given)
        prunable = [group for group in find_groups(graph) if group.prunable]
        self._evidence = channel_evidence(graph, prunable, request, given)
        self._statistics = {name for node in graph.nodes if node.op is Op.BATCH_NORM for name in node.inputs[3:]}

    def masks(self, graph: Graph, share: float, held: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Masks by constant once `share` of what is to go is gone; `graph` has the weights of the moment and `held` are
        the masks that hold already."""
        masks: dict[str, np.ndarray] = {}
        for plan in self._final.groups:
            group = plan.group
            if len(plan.kept) == group.size:
                continue
            lost = 1 - len(plan.kept) / group.size
            scores = np.where(self._gone(group, held), -np.inf, self._scores(graph, plan))
            kept = best_channels(scores, kept_count(group.size, share * lost, 1))
            gone = ~np.isin(np.arange(group.size), kept)
            for cut in self._masked(group):
                mask = masks.setdefault(cut.tensor, np.ones(graph.types[cut.tensor].shape, bool))
                np.moveaxis(mask, cut.axis, 0)[cut.indices[gone].reshape(-1)] = False
        return masks

    def plan(self, graph: Graph, held: Mapping[str, np.ndarray]) -> PruningPlan:
        """What `held` masks by now, as a plan to cut it out of `graph`."""
        groups = []
        for plan in self._final.groups:
            cut = len(plan.kept) < plan.group.size
            kept = np.flatnonzero(~self._gone(plan.group, held)) if cut else plan.kept
            groups.append(GroupPlan(plan.group, kept, plan.scores))
        return with_costs(graph, PruningPlan(self._request, tuple(groups)))

    def _masked(self, group: ChannelGroup) -> list[Place]:
        """Where a channel is masked: statistics of batch norms are not."""
        return [cut for cut in group.cuts if cut.tensor not in self._statistics]

    def _gone(self, group: ChannelGroup, held: Mapping[str, np.ndarray]) -> np.ndarray:
        """`(size,)`: whether nothing is left of a channel."""
        gone = np.ones(group.size, bool)
        for cut in self._masked(group):
            if cut.tensor not in held:
                return np.zeros(group.size, bool)
            rows = np.moveaxis(held[cut.tensor], cut.axis, 0)
            left = np.any(rows.reshape(len(rows), -1), axis=1)
            gone &= ~np.any(left[cut.indices], axis=1)
        return gone

    def _scores(self, graph: Graph, plan: GroupPlan) -> np.ndarray:
        return IMPORTANCES[self._request.importance].channels(graph, plan.group, self._evidence)
