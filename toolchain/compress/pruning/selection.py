"""How many channels each group keeps, and which.

    local     each group loses the share `ratio` of its channels
    global    all groups lose what lies below one threshold of importance / mean importance of the group
              (`taylor` and `fisher` as they are), each at most `MOST`

Where the ratio is of a cost, the share or the threshold is the least that brings the cost down to (1 - ratio) of what
it was, found by bisection: cost falls with either. Rounding then takes more than was asked for, so each group gets
a step back where the budget allows, those whose lost channels matter most first. What is kept is at least one channel
and is rounded up to a multiple of `round_to` elements, the device's vector width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import gcd

import numpy as np

from toolchain.compress.channels.groups import ChannelGroup

MOST = 0.9
"""The largest share that a group loses to a global threshold: a layer of one channel carries nothing."""

_SHARES = np.linspace(0, 1, 1025)[:-1]


Counts = Callable[[float], list[int]]
"""Channels that each group keeps where `t` of them (a share, a rank of thresholds) go."""


def kept_count(size: int, ratio: float, round_to: int) -> int:
    """How many of `size` channels stay: at least one, a multiple of `round_to` where `size` is not smaller."""
    wanted = max(size - int(ratio * size + 1e-9), 1)
    return min(-(-wanted // round_to) * round_to, size)


def channel_step(group: ChannelGroup, round_to: int) -> int:
    """Channels that make a multiple of `round_to` elements: fewer where one channel is several elements wherever it
    lies, as an attention head is."""
    width = min((cut.indices.shape[1] for cut in group.cuts), default=1)
    return round_to // gcd(round_to, width)


def best_channels(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` channels with the highest scores, ascending; of equals the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def local_counts(groups: Sequence[ChannelGroup], round_to: int, original: Mapping[str, int]) -> Counts:
    """Each prunable group keeps `kept_count` of its `original` size, or of its size where that is not given."""

    def counts(share: float) -> list[int]:
        return [_local_count(group, share, round_to, original) for group in groups]

    return counts


def _local_count(group: ChannelGroup, share: float, round_to: int, original: Mapping[str, int]) -> int:
    if not group.prunable:
        return group.size
    wanted = kept_count(original.get(group.name, group.size), share, channel_step(group, round_to))
    return min(wanted, group.size)


def global_counts(
    groups: Sequence[ChannelGroup], scores: Sequence[np.ndarray], round_to: int, original: Mapping[str, int]
) -> Counts:
    """Each prunable group keeps what is not among the share of all channels with the lowest scores."""
    prunable = [s for group, s in zip(groups, scores, strict=True) if group.prunable]
    pooled = np.sort(np.concatenate([np.zeros(0), *prunable]))
    whole = sum(original.get(group.name, group.size) for group in groups if group.prunable)

    def counts(share: float) -> list[int]:
        gone = max(int(share * whole + 1e-9) - (whole - len(pooled)), 0)
        threshold = pooled[gone - 1] if gone else -np.inf
        return [_above(group, s, threshold, round_to, original) for group, s in zip(groups, scores, strict=True)]

    return counts


def _above(
    group: ChannelGroup, scores: np.ndarray, threshold: float, round_to: int, original: Mapping[str, int]
) -> int:
    if not group.prunable:
        return group.size
    step = channel_step(group, round_to)
    least = kept_count(original.get(group.name, group.size), MOST, step)
    wanted = max(int(np.count_nonzero(scores > threshold)), 1)
    return min(max(-(-wanted // step) * step, least), group.size)


def normalised(scores: np.ndarray) -> np.ndarray:
    """Scores by their mean, so that groups can be compared."""
    mean = float(scores.mean()) if scores.size else 0.0
    return scores / mean if mean > 0 else scores


def least_share(counts: Counts, cost: Callable[[list[int]], float], budget: float) -> float:
    """The least share whose counts cost at most `budget`; the largest there is where none does."""
    low, high = 0, len(_SHARES) - 1
    while low < high:
        middle = (low + high) // 2
        if cost(counts(_SHARES[middle])) <= budget:
            high = middle
        else:
            low = middle + 1
    return float(_SHARES[low])


def give_back(
    groups: Sequence[ChannelGroup],
    scores: Sequence[np.ndarray],
    kept: Sequence[int],
    round_to: int,
    fits: Callable[[list[int]], bool],
) -> list[int]:
    """`kept` with a step more for every group for which it still `fits`, by the best normalised score that is lost."""
    found = list(kept)
    order = []
    for place, (group, score) in enumerate(zip(groups, scores, strict=True)):
        if group.prunable and found[place] < group.size:
            order.append((-float(np.sort(normalised(score))[::-1][found[place]]), place))
    for _, place in sorted(order):
        more = list(found)
        more[place] = min(found[place] + channel_step(groups[place], round_to), groups[place].size)
        if fits(more):
            found = more
    return found
