"""Filters that are nearly the same become the same: whole output channels of a layer tied to their mean.

    |a - b|^2 <= tolerance^2 (|a|^2 + |b|^2) / 2        a, b: all weights of two output channels

In the order of their norms each filter takes in those near it that are not taken yet; all of a set become its mean,
which loses least. What was masked in any of them is zero in all.

What it saves is bytes of a packed file, where a filter that repeats another is a number: neither the file that runs is
smaller nor a runtime faster, since no format says that two channels are one. Pruning channels saves those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class TiedFilters:
    """`owners (O,)`: the channel that each output channel is a copy of, its own number where it is none."""

    owners: np.ndarray
    weight: np.ndarray
    mask: np.ndarray | None

    @property
    def count(self) -> int:
        """Channels that are copies of another."""
        return int(np.count_nonzero(self.owners != np.arange(len(self.owners))))


def tie_filters(weight: np.ndarray, tolerance: float, mask: np.ndarray | None = None) -> TiedFilters:
    """Tie the filters of a weight (O, ...). `mask`, of its shape: True = kept. A tolerance of 0 ties nothing."""
    owners = np.arange(len(weight))
    if not tolerance:
        return TiedFilters(owners, weight, mask)
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    energies = np.square(flat).sum(1)
    free = np.ones(len(flat), bool)
    for leader in np.argsort(-energies, kind="stable"):
        if free[leader]:
            rivals = np.flatnonzero(free)
            distances = energies[rivals] + energies[leader] - 2 * flat[rivals] @ flat[leader]
            near = rivals[distances <= tolerance**2 * (energies[rivals] + energies[leader]) / 2]
            owners[near] = owners[leader] = min(int(near.min(initial=leader)), int(leader))
            free[near] = free[leader] = False
    return _averaged(weight, mask, owners)


def _averaged(weight: np.ndarray, mask: np.ndarray | None, owners: np.ndarray) -> TiedFilters:
    tied = np.array(weight)
    kept = None if mask is None else np.array(mask)
    for owner in np.flatnonzero(np.bincount(owners, minlength=len(owners)) > 1):
        members = owners == owner
        mean = weight[members].astype(np.float64).mean(0)
        if kept is not None:
            kept[members] = kept[members].all(0)
            mean = mean * kept[owner]
        tied[members] = mean.astype(weight.dtype)
    return TiedFilters(owners, tied, kept)
