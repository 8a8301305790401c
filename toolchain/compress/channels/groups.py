"""Dependency groups: the channels that can be removed, each with every place it must be cut from.

Two labels are the same **channel** when a chain of ties joins them (connected components). Two channels are
of the same **group** when they lie on the same axes of the same tensors, equally often: the m outputs of a
convolution, its batch norm and the columns that read it are one group of m channels. A group is what is
pruned by one ratio.

After DepGraph (Fang et al., arXiv 2301.12900); see `channels` for how the ties come about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from toolchain.compress.channels.flow import ChannelFlow, Fixed, Labels
from toolchain.compress.channels.rules import trace_channels
from toolchain.graph import RECURRENT, WEIGHTED, Graph
from toolchain.graph.components import connected


@dataclass(frozen=True, eq=False)
class Place:
    """Where a group lies: channel i is `indices[i]` (`(size, count)`, ascending) on `axis` of `tensor`."""

    tensor: str
    axis: int
    indices: np.ndarray

    def __str__(self) -> str:
        count = self.indices.shape[1]
        return f"{self.tensor}[{self.axis}]" + (f" x{count}" if count > 1 else "")


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """`size` channels that live and die in the same places. `reason` says why none of them may go; empty:
    they may.

    `cuts` are the constants that get smaller, `activations` the tensors that become narrower by it.
    """

    name: str
    size: int
    cuts: tuple[Place, ...]
    activations: tuple[Place, ...]
    reason: str = ""

    @property
    def prunable(self) -> bool:
        return not self.reason

    @cached_property
    def places(self) -> dict[tuple[str, int], Place]:
        return {(place.tensor, place.axis): place for place in (*self.cuts, *self.activations)}

    def __str__(self) -> str:
        fate = self.reason or "prunable"
        return f"{self.name}: {self.size} channels, {', '.join(map(str, self.cuts))} ({fate})"


def find_groups(graph: Graph) -> tuple[ChannelGroup, ...]:
    """All groups of channels that a weight makes or reads, in the order of the graph, prunable or not."""
    flow = trace_channels(graph)
    channels = connected(flow.count, flow.ties)
    reasons, reason_of = _reasons(flow, channels)
    on_axes = {key: channels[axis] for key, axis in flow.places.items() if not isinstance(axis, Fixed)}
    group_of = _partition(list(on_axes.values()), reason_of)
    members: dict[int, list[Place]] = {}
    for (tensor, axis), on_axis in on_axes.items():
        for group, indices in _by_group(group_of[on_axis], on_axis):
            members.setdefault(group, []).append(Place(tensor, axis, indices))
    why = {int(group): reasons[reason_of[channel]] for channel, group in enumerate(group_of)}
    sites = _weight_sites(graph)
    found = [(site, group) for group, places in members.items() if (site := _first_site(places, sites))]
    return tuple(_group(graph, site, members[group], why[group]) for site, group in sorted(found))


def _reasons(flow: ChannelFlow, channels: Labels) -> tuple[list[str], Labels]:
    """The reasons there are (the first is none), and for each channel the number of the first that holds
    it."""
    reasons, reason_of = [""], np.zeros(flow.count, np.int64)
    for labels, reason in flow.pins:
        held = channels[labels]
        if reason not in reasons:
            reasons.append(reason)
        reason_of[held] = np.where(reason_of[held] == 0, reasons.index(reason), reason_of[held])
    return reasons, reason_of


def _partition(on_axes: Sequence[Labels], reason_of: Labels) -> Labels:
    """Group of each channel: those that lie on the same axes, equally often, for the same reason, stay
    together."""
    group_of = reason_of.copy()
    fresh = int(group_of.max(initial=0)) + 1
    for on_axis in on_axes:
        present, counts = np.unique(on_axis, return_counts=True)
        signature = group_of[present] * (len(on_axis) + 1) + counts
        distinct, number = np.unique(signature, return_inverse=True)
        group_of[present] = fresh + number
        fresh += len(distinct)
    return group_of


def _by_group(groups: Labels, channels: Labels) -> Iterator[tuple[int, np.ndarray]]:
    """For each group on an axis: its indices there, `(size, count)`, channels in the order of their
    labels."""
    order = np.lexsort((channels, groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    for run in np.split(order, starts[1:]):
        yield int(groups[run[0]]), run.reshape(len(np.unique(channels[run])), -1)


# position in the graph, whether the weight makes (0) or reads (1) the channels, what names the group
Site: TypeAlias = tuple[int, int, str]


def _weight_sites(graph: Graph) -> dict[tuple[str, int], Site]:
    """Where weights make channels (axis 0) and read them (axis 1)."""
    sites: dict[tuple[str, int], Site] = {}
    for position, node in enumerate(graph.nodes):
        if node.op in WEIGHTED | RECURRENT:
            sites.setdefault((node.inputs[1], 0), (position, 0, node.name))
            sites.setdefault((node.inputs[1], 1), (position, 1, node.inputs[0]))
    return sites


def _first_site(places: Sequence[Place], sites: dict[tuple[str, int], Site]) -> Site | None:
    """The first weight that makes the channels; that reads them, where none makes them."""
    found = [sites[key] for place in places if (key := (place.tensor, place.axis)) in sites]
    return min(found, key=lambda site: (site[1], site[0]), default=None)


def _group(graph: Graph, site: Site, places: Sequence[Place], reason: str) -> ChannelGroup:
    _, reads, name = site
    size = len(places[0].indices)
    if not reason and reads:
        reason = "no weight makes these channels"
    if not reason and size == 1:
        reason = "it is the only channel"
    cuts = tuple(place for place in places if graph.is_constant(place.tensor))
    activations = tuple(place for place in places if not graph.is_constant(place.tensor))
    return ChannelGroup(name, size, cuts, activations, reason)
