"""Labels on every axis of every tensor, what ties them and what pins them: the state that channel rules work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from toolchain.graph import Graph
from toolchain.graph.types import Shape


@dataclass(frozen=True)
class Fixed:
    """An axis from which nothing can be cut."""

    reason: str


Labels: TypeAlias = np.ndarray
Axis: TypeAlias = Labels | Fixed


class ChannelFlow:
    """What the rules have found so far: `places` holds the labels of (tensor, axis), `ties` pairs of label
    arrays that belong together, `pins` labels that must stay and why."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.places: dict[tuple[str, int], Axis] = {}
        self.ties: list[tuple[Labels, Labels]] = []
        self.pins: list[tuple[Labels, str]] = []
        self.count = 0

    def shape(self, name: str) -> Shape:
        return self.graph.types[name].shape

    def axes(self, name: str) -> tuple[Axis, ...]:
        return tuple(self.axis(name, axis) for axis in range(len(self.shape(name))))

    def axis(self, name: str, axis: int) -> Axis:
        """Labels of one axis; those of a constant are new when first asked for."""
        if (name, axis) not in self.places:
            self.places[name, axis] = self.new_labels(self.shape(name)[axis])
        return self.places[name, axis]

    def new_labels(self, size: int) -> Labels:
        self.count += size
        return np.arange(self.count - size, self.count)

    def tie(self, left: Axis, right: Axis) -> Axis:
        """Index i of one goes with index i of the other; what the two are together."""
        if isinstance(left, Fixed):
            return self.pin(right, left.reason)
        if isinstance(right, Fixed):
            return self.pin(left, right.reason)
        if left is not right:
            self.ties.append((left, right))
        return left

    def pin(self, axis: Axis, reason: str) -> Fixed:
        if isinstance(axis, Fixed):
            return axis
        self.pins.append((axis, reason))
        return Fixed(reason)
