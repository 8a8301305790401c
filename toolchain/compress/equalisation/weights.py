"""Factors from weights alone: every label's makers and readers get the same geometric mean range.

    log f_i += (mean over readers of log(r_i / R) - mean over makers of log(r_i / R)) / 2,

r the range of channel i in a weight, R that of the weight; layer by layer, until factors settle. For one maker and one
reader this is equation 11 of Nagel et al., arXiv 1906.04721, up to a factor that all channels share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from toolchain.compress.equalisation.scale_flow import UNIT, Channels
from toolchain.compress.equalisation.terms import kernel_sizes
from toolchain.graph import WEIGHTED

_ROUNDS = 50
_SETTLED = 1e-3  # of log f


@dataclass(frozen=True, eq=False)
class _Weight:
    """Log magnitudes `(O, J)` of a weight's kernels, the roots `(O,)` of its outputs and `(O, J)` of its inputs, `(1,
    J)` where all outputs read the same."""

    logs: np.ndarray
    up: np.ndarray
    down: np.ndarray

    def made(self, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Roots of the outputs, and the log range of each."""
        return self.up, (self.logs - logs[self.down]).max(axis=1) + logs[self.up]

    def read(self, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Roots of the inputs, and the log range of each."""
        scaled = self.logs + logs[self.up][:, None]
        if len(self.down) == 1:
            scaled = scaled.max(axis=0, keepdims=True)
        return self.down.reshape(-1), (scaled - logs[self.down]).reshape(-1)


def balance_weights(channels: Channels, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Log factors `(count,)` between `low` and `high` (logs too)."""
    parts = _parts(channels)
    logs = np.clip(np.zeros(channels.flow.count), low, high)
    for _ in range(_ROUNDS):
        before = logs.copy()
        for labels, makers, readers in parts:
            made = _mean_range([weight.made(logs) for weight in makers], len(logs))[labels]
            read = _mean_range([weight.read(logs) for weight in readers], len(logs))[labels]
            with np.errstate(invalid="ignore"):
                shift = (read - made) / 2
            usable = np.isfinite(shift) & (low[labels] < high[labels])
            moved = labels[usable]
            logs[moved] = np.clip(logs[moved] + shift[usable], low[moved], high[moved])
        if np.abs(logs - before).max(initial=0.0) < _SETTLED:
            break
    return logs


def _weights(channels: Channels) -> list[_Weight]:
    found = []
    for use in channels.flow.uses:
        if use.is_weight and use.node.op in WEIGHTED:
            size, up, down = kernel_sizes(channels, use)
        elif use.is_weight:
            value = np.abs(channels.flow.graph.constants[use.constant].astype(np.float64))
            up, down = (
                np.broadcast_to(channels.root[labels], value.shape).reshape(-1) for labels in (use.up, use.down)
            )
            size, down = value.reshape(-1, 1), down[:, None]
        else:
            continue
        with np.errstate(divide="ignore"):
            found.append(_Weight(np.log(size), up, down))
    return found


_Part: TypeAlias = tuple[np.ndarray, list[_Weight], list[_Weight]]
"""Labels, the weights that make them and those that read them."""


def _parts(channels: Channels) -> list[_Part]:
    """Labels that the same weights make and read, together; those that lack one or the other have no balance."""
    weights = _weights(channels)
    sides = [(weight, roots) for weight in weights for roots in (weight.up, weight.down)]
    key = np.zeros(channels.flow.count, np.int64)
    for _, roots in sides:
        present = np.unique(roots)
        _, number = np.unique(key[present], return_inverse=True)
        key[present] = key.max() + 1 + number
    key[UNIT] = 0
    found = []
    for number in np.unique(key[key > 0]):
        labels = np.flatnonzero(key == number)
        makers = [weight for weight in weights if np.any(weight.up == labels[0])]
        readers = [weight for weight in weights if np.any(weight.down == labels[0])]
        if makers and readers:
            found.append((labels, makers, readers))
    return found


def _mean_range(ranges: list[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """Mean over weights of each label's log range, relative to that of the weight."""
    total = np.zeros(count)
    for roots, extent in ranges:
        each = np.full(count, -np.inf)
        np.maximum.at(each, roots, extent)
        total += each - extent.max()
    return total / len(ranges)
