"""Outlier channel splitting: a channel that spoils the range of a tensor is duplicated and halved (Zhao et al., arXiv
1901.09504).

    y = W x:    x -> (x, x),  W[:, j] -> (W[:, j] / 2, W[:, j] / 2)     where column j spoils the range of W,
                x_j -> (x_j / 2, x_j / 2),  W[:, j] -> (W[:, j], W[:, j])   where channel j spoils that of x,

and the function is the same, for a few more channels. The second form halves the layers that make x, as far as a
factor passes what lies between (`scale_flow`). Which channels are one, and every place they lie, is what pruning knows
(`groups`): splitting widens where pruning cuts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from toolchain.compress.channels.groups import ChannelGroup, find_groups
from toolchain.compress.channels.widen import (
    Orders,
    readers_of,
    why_not_widened,
    widen_graph,
    widen_structure,
    widening_orders,
)
from toolchain.compress.equalisation.scale_factors import ChannelRanges, apply_factors, channel_extent, factor_bounds
from toolchain.compress.equalisation.scale_flow import UNIT, Channels
from toolchain.compress.equalisation.scale_rules import trace_scales
from toolchain.compress.tables import format_table
from toolchain.errors import OptionError
from toolchain.graph import Graph, Structure
from toolchain.quantization import Granularity, Scheme
from toolchain.quantization.statistics import channel_axis


class Cause(StrEnum):
    """What the outliers spoil."""

    WEIGHTS = "weights"
    ACTIVATIONS = "activations"


@dataclass(frozen=True)
class SplitChannels:
    """Channels `indices` of the group `name`, of `channels`, are split; ranges shrink by `gain` (geometric mean over
    the tensors that `cause` names)."""

    name: str
    channels: int
    indices: tuple[int, ...]
    cause: Cause
    gain: float

    def row(self) -> tuple[str, ...]:
        why = f"outliers of {self.cause}: {_listed(self.indices)}"
        return (self.name, str(self.channels), f"+{len(self.indices)}", f"{self.gain:.2f}", why)


@dataclass(frozen=True)
class Splitting:
    """What `split_channels` did; `kept` are groups with outliers that cannot be widened, and why."""

    groups: tuple[SplitChannels, ...]
    kept: Mapping[str, str] = field(default_factory=dict)
    orders: Orders = field(default_factory=dict)

    @property
    def added(self) -> int:
        return sum(len(group.indices) for group in self.groups)

    def structure(self, before: Structure) -> Structure:
        """Masks and codebooks for the new graph."""
        return widen_structure(before, self.orders)

    def __str__(self) -> str:
        header = ("group", "channels", "split", "range gain", "why")
        lines = [format_table(header, [g.row() for g in self.groups])] if self.groups else ["nothing is split"]
        return "\n".join([*lines, *(f"{name} is not split: {why}" for name, why in self.kept.items())])


def _listed(indices: tuple[int, ...]) -> str:
    return ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")


def split_channels(
    graph: Graph,
    channel_ranges: ChannelRanges | None = None,
    *,
    structure: Structure | None = None,
    scheme: Scheme | None = None,
    share: float = 0.05,
    gain: float = 1.3,
) -> tuple[Graph, Splitting]:
    """The folded `graph` with outlier channels split, and what was done.

    In each group of channels at most `share` of them (one at least) are split, where the range of the weights that
    read them, or of the activations they lie on, shrinks by the factor `gain` or more. Without `channel_ranges`
    only weights are looked at. `scheme` tells which weights have one range a tensor and which one an output channel.

    Raises OptionError where `share` is not between 0 and 1 or `gain` not above 1.
    """
    if not 0 < share <= 1 or gain <= 1:
        raise OptionError(f"share is {share}, gain {gain}", hint="share lies in (0, 1], gain above 1")
    scheme, structure = scheme or Scheme(), structure or Structure()
    channels = Channels.of(trace_scales(graph, structure))
    chosen: list[tuple[ChannelGroup, SplitChannels]] = []
    kept: dict[str, str] = {}
    for group in find_groups(graph):
        if not group.prunable:
            continue
        found = [_best(group, _weight_sizes(graph, group, scheme), share, Cause.WEIGHTS)]
        if channel_ranges is not None:
            sizes = _activation_sizes(channels, group, channel_ranges)
            found.append(_best(group, sizes, share, Cause.ACTIVATIONS))
        best = max((f for f in found if f is not None and f.gain >= gain), key=lambda f: f.gain, default=None)
        if best is None:
            continue
        if reason := why_not_widened(graph, group, structure):
            kept[group.name] = reason
        else:
            chosen.append((group, best))
    orders = widening_orders(graph, [(group, np.asarray(split.indices)) for group, split in chosen])
    wide = widen_graph(graph, orders)
    return _halved(wide, chosen, orders), Splitting(tuple(split for _, split in chosen), kept, orders)


Sizes = list[np.ndarray]
"""Magnitudes `(size, rows)` of a group's channels in each tensor; every row has a range of its own."""


def _weight_sizes(graph: Graph, group: ChannelGroup, scheme: Scheme) -> Sizes:
    found = []
    for node, place in readers_of(graph, group):
        weight = np.abs(graph.constants[place.tensor].astype(np.float64))
        matrix = weight.reshape(*weight.shape[:2], -1).max(axis=2)
        if scheme.granularity(node.op) is Granularity.PER_TENSOR:
            matrix = matrix.max(axis=0, keepdims=True)
        found.append(matrix[:, place.indices].max(axis=2).T)
    return found


def _activation_sizes(channels: Channels, group: ChannelGroup, ranges: ChannelRanges) -> Sizes:
    """Of activations that can be halved, where they lie on the axis that was measured."""
    low, high = factor_bounds(channels, None, 1.0)
    found = []
    for place in group.activations:
        if place.tensor not in ranges or place.axis != channel_axis(channels.flow.graph, place.tensor):
            continue
        roots, least, largest = channel_extent(channels, place.tensor, ranges)
        if len(roots) != channels.flow.shape(place.tensor)[place.axis]:
            continue
        if np.any((roots[place.indices] == UNIT) | (low[roots] == high[roots])[place.indices]):
            return []
        found.append(np.maximum(np.abs(least), np.abs(largest))[place.indices].max(axis=1, keepdims=True))
    return found


def _best(group: ChannelGroup, sizes: Sizes, share: float, cause: Cause) -> SplitChannels | None:
    """The fewest channels that gain the most."""
    rows = [size / np.maximum(size.max(axis=0), 1e-30) for size in sizes]
    if not rows:
        return None
    order = np.argsort(-np.max([row.max(axis=1) for row in rows], axis=0), kind="stable")
    best: SplitChannels | None = None
    for count in range(1, max(int(share * group.size), 1) + 1):
        split = order[:count]
        gains = []
        for row in rows:
            halved = row.copy()
            halved[split] /= 2
            gains.append(float(-np.log(np.maximum(halved.max(axis=0), 1e-30)).mean()))
        gained = float(np.exp(np.mean(gains)))
        if best is None or gained > best.gain * 1.01:
            best = SplitChannels(group.name, group.size, tuple(sorted(map(int, split))), cause, gained)
    return best


def _halved(wide: Graph, chosen: list[tuple[ChannelGroup, SplitChannels]], orders: Orders) -> Graph:
    """The widened graph with what makes outlier channels of activations halved, and what reads them as it was."""
    spoiling = [(group, split) for group, split in chosen if split.cause is Cause.ACTIVATIONS]
    if not spoiling:
        return wide
    channels = Channels.of(trace_scales(wide))
    factors = np.ones(channels.flow.count)
    for group, split in spoiling:
        for place in group.activations:
            roots = channels.of_tensor(place.tensor)
            if place.axis < roots.ndim and roots.shape[place.axis] > 1:
                moved = np.isin(orders[place.tensor, place.axis], place.indices[list(split.indices)])
                factors[roots.reshape(-1)[moved]] = 0.5
    factors[UNIT] = 1.0
    return apply_factors(channels, factors).graph
