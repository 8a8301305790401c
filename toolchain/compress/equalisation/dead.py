"""Channels that carry nothing: a kernel of zeros, readers that are all zero, or a result that is zero on every sample.

They can be pruned, and must not take part in scaling: any factor would do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolchain.compress.equalisation.scale_factors import ChannelRanges, channel_extent
from toolchain.compress.equalisation.scale_flow import UNIT, Channels
from toolchain.compress.equalisation.scale_rules import trace_scales
from toolchain.compress.tables import format_table
from toolchain.graph import WEIGHTED, Graph
from toolchain.quantization.statistics import channel_axis


@dataclass(frozen=True)
class DeadChannels:
    """Indices of the dead channels of each layer, by the tensor that the layer makes.

    `without_weights` have kernels of zeros, `silent` were zero on every sample, `unread` have readers that are zero.
    """

    without_weights: Mapping[str, tuple[int, ...]]
    silent: Mapping[str, tuple[int, ...]]
    unread: Mapping[str, tuple[int, ...]]

    @property
    def count(self) -> int:
        return sum(len(self.of(name)) for name in self.names)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.without_weights, *self.silent, *self.unread)))

    def of(self, name: str) -> tuple[int, ...]:
        """All dead channels of one tensor, in order."""
        found = (kind.get(name, ()) for kind in (self.without_weights, self.silent, self.unread))
        return tuple(sorted({index for indices in found for index in indices}))

    def __str__(self) -> str:
        if not self.names:
            return "no dead channels"
        rows = [
            (name, *(str(len(kind.get(name, ()))) for kind in (self.without_weights, self.silent, self.unread)), shown)
            for name in self.names
            if (shown := _shown(self.of(name)))
        ]
        return format_table(("layer", "no weights", "silent", "unread", "channels"), rows)


def _shown(indices: tuple[int, ...]) -> str:
    listed = ", ".join(map(str, indices[:12]))
    return f"{listed}, ... ({len(indices)})" if len(indices) > 12 else listed


def find_dead_channels(graph: Graph, channel_ranges: ChannelRanges | None = None) -> DeadChannels:
    """Dead channels of every layer with weights of the folded `graph`. Without `channel_ranges` only weights are
    looked at."""
    channels = Channels.of(trace_scales(graph))
    read = _read(channels)
    without, silent, unread = {}, {}, {}
    for node in graph.nodes:
        if node.op not in WEIGHTED or not graph.is_constant(node.inputs[1]):
            continue
        name, weight = node.output, graph.constants[node.inputs[1]]
        without[name] = _places(~np.any(weight.reshape(len(weight), -1), axis=1))
        silent[name] = _places(_is_silent(graph, name, channel_ranges))
        roots = channels.of_tensor(name).reshape(-1)
        unread[name] = _places((roots != UNIT) & ~read[roots]) if len(roots) == len(weight) else ()
    return DeadChannels(
        *({name: places for name, places in kind.items() if places} for kind in (without, silent, unread))
    )


def dead_labels(channels: Channels, channel_ranges: ChannelRanges | None) -> np.ndarray:
    """Which labels `(count,)` bool belong to a channel that is dead anywhere: made or read by zeros, or silent."""
    made = np.ones(channels.flow.count, bool)
    for use in channels.flow.uses:
        if use.is_weight:
            rows = channels.flow.graph.constants[use.constant] != 0
            roots = channels.root[use.up]
            extra = tuple(axis for axis in range(rows.ndim) if roots.shape[axis] == 1)
            np.logical_and.at(made, roots, rows.any(axis=extra, keepdims=True))
    dead = ~made | ~_read(channels)
    for name in channel_ranges or {}:
        if name in channels.flow.places:
            roots, low, high = channel_extent(channels, name, channel_ranges or {})
            dead[roots[(low == 0) & (high == 0)]] = True
    dead[UNIT] = False
    return np.asarray(dead)


def _read(channels: Channels) -> np.ndarray:
    """Which labels `(count,)` are read by a weight that is not zero, or by what is no weight."""
    read, by_weight = np.zeros(channels.flow.count, bool), np.zeros(channels.flow.count, bool)
    for use in channels.flow.uses:
        if use.is_weight:
            columns = channels.flow.graph.constants[use.constant] != 0
            roots = channels.root[use.down]
            extra = tuple(axis for axis in range(columns.ndim) if roots.shape[axis] == 1)
            np.logical_or.at(read, roots, columns.any(axis=extra, keepdims=True))
            by_weight[roots] = True
    return np.asarray(read | ~by_weight)


def _is_silent(graph: Graph, name: str, ranges: ChannelRanges | None) -> np.ndarray:
    """Behind an activation of its own, if the layer has none fused."""
    follower = graph.only_consumer(name)
    if follower is not None and follower.op in ("relu", "relu6"):
        name = follower.output
    if ranges is None or name not in ranges:
        return np.zeros(0, bool)
    low, high = ranges[name]
    along = channel_axis(graph, name) == (1 if graph.types[name].rank == 4 else graph.types[name].rank - 1)
    return np.asarray((low == 0) & (high == 0)) if along else np.zeros(0, bool)


def _places(marked: np.ndarray) -> tuple[int, ...]:
    return tuple(int(index) for index in np.flatnonzero(marked))
