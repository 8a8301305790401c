"""Where a channel's factor goes: which elements of a graph can be scaled together without changing what it computes.

If the makers of a channel are multiplied by f > 0 and its readers divided by f, what lies between must commute with
the factor, `op(f x) = f op(x)` (positive homogeneity: Nagel et al., arXiv 1906.04721, section 4.1). Every element of
every activation carries the **label** of its factor; elements that must have the same factor carry labels that are
tied. A rule reads the labels of its node's inputs, ties what the op ties and returns the labels of its result: a
ReLU hands them on, a residual add ties two tensors, a convolution reads one set and makes another. `UNIT` is the
label of what keeps factor 1; whatever is tied to it does too.

Labels are compact: an axis along which they do not vary has size 1, `(1, C, 1, 1)` for an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from toolchain.graph import WEIGHTED, Graph, Node, Structure
from toolchain.graph.components import connected

UNIT = 0


@dataclass(frozen=True, eq=False)
class ScaledUse:
    """`constant`, read by `node` at input `position`, becomes `constant * f[up] / f[down]`.

    `up` and `down` are labels that broadcast to the constant's shape. `is_weight` tells what is quantized to a range
    of its own, whose channels are to be brought near to each other, from biases and offsets, which follow.
    """

    node: Node
    position: int
    up: np.ndarray
    down: np.ndarray
    is_weight: bool

    @property
    def constant(self) -> str:
        return self.node.inputs[self.position]


@dataclass(frozen=True, eq=False)
class Ceiling:
    """`tensor` is clipped to `[low, high]`: a factor must keep its values inside, where they are now."""

    tensor: str
    labels: np.ndarray
    low: float
    high: float


class ScaleFlow:
    """What the rules have found so far: `places` holds the labels of each tensor, `ties` pairs of labels with the same
    factor, `uses` the constants that follow, `ceilings` the clips on the way, `reasons` why a tensor keeps factor 1."""

    def __init__(self, graph: Graph, structure: Structure | None = None) -> None:
        self.graph = graph
        self.structure = structure or Structure()
        self.places: dict[str, np.ndarray] = {}
        self.ties: list[tuple[np.ndarray, np.ndarray]] = []
        self.uses: list[ScaledUse] = []
        self.ceilings: list[Ceiling] = []
        self.reasons: dict[str, str] = {}
        self.count = UNIT + 1
        self._weights: dict[str, ScaledUse] = {}

    def new_labels(self, size: int) -> np.ndarray:
        self.count += size
        return np.arange(self.count - size, self.count)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.types[name].shape

    def units(self, name: str) -> np.ndarray:
        """Labels of a tensor that keeps its scale."""
        return np.full((1,) * len(self.shape(name)), UNIT)

    def labels(self, name: str) -> np.ndarray:
        """Labels of an activation; a constant keeps its scale unless a rule lets it follow."""
        return self.places[name] if name in self.places else self.units(name)

    def tie(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Elements of one go with those of the other, broadcast; the labels of both together."""
        left, right = np.broadcast_arrays(left, right)
        self.ties.append((left.reshape(-1), right.reshape(-1)))
        return np.where(left == UNIT, right, left)

    def pin(self, name: str, reason: str) -> None:
        """The tensor `name` keeps its scale."""
        labels = self.labels(name)
        if np.any(labels != UNIT):
            self.ties.append((labels.reshape(-1), np.full(labels.size, UNIT)))
            self.reasons.setdefault(name, reason)

    def collapse(self, labels: np.ndarray, axes: Iterable[int]) -> np.ndarray:
        """One factor along each of `axes`, where an op sums, selects or slides along them."""
        for axis in axes:
            if labels.shape[axis] > 1:
                first = labels.take([0], axis)
                self.tie(labels, first)
                labels = first
        return labels

    def channels(self, name: str, axis: int) -> np.ndarray:
        """Labels `(C,)` of a tensor along `axis`, one factor along every other."""
        labels = self.collapse(self.labels(name), (a for a in range(len(self.shape(name))) if a != axis))
        return np.broadcast_to(labels.reshape(-1), self.shape(name)[axis])

    def use_weight(self, node: Node, position: int, up: np.ndarray, down: np.ndarray) -> None:
        """A weight that several nodes read has one value for all: what they scale it by is tied."""
        use = ScaledUse(node, position, up, down, True)
        first = self._weights.setdefault(use.constant, use)
        if first is not use:
            self.tie(first.up, up)
            self.tie(first.down, down)
        self.uses.append(use)

    def follow(self, node: Node, position: int, labels: np.ndarray) -> None:
        """A constant operand is multiplied by the factors of what it is added to or compared with. Where it has one
        value for many labels, these have one factor."""
        shape = self.shape(node.inputs[position])
        labels = labels.reshape((1,) * (len(shape) - labels.ndim) + labels.shape)
        leading = labels.ndim - len(shape)
        labels = self.collapse(labels, range(leading))
        labels = labels.reshape(labels.shape[leading:])
        labels = self.collapse(labels, [a for a, size in enumerate(shape) if size == 1])
        self.uses.append(ScaledUse(node, position, labels, np.full_like(labels, UNIT), False))

    def why_weight_stays(self, node: Node) -> str:
        """Why the constants of a layer must keep their values; empty where they need not."""
        weight = node.inputs[1]
        if not all(self.graph.is_constant(name) for name in node.inputs[1:]):
            return "its weights are computed"
        if weight in self.structure.codebooks:
            return "its weights have a codebook, whose values would multiply"
        if any(reader.op not in WEIGHTED or reader.inputs[1] != weight for reader in self.graph.consumers[weight]):
            return "other ops read its weights too"
        return ""


@dataclass(frozen=True, eq=False)
class Channels:
    """The labels of a flow once ties are resolved: `root (count,)` is the representative of each label, `UNIT` for
    those that keep factor 1."""

    flow: ScaleFlow
    root: np.ndarray

    @classmethod
    def of(cls, flow: ScaleFlow) -> Channels:
        return cls(flow, connected(flow.count, flow.ties))

    def of_tensor(self, name: str) -> np.ndarray:
        return np.asarray(self.root[self.flow.labels(name)])


def compact(labels: np.ndarray) -> np.ndarray:
    """The same array with size 1 along every axis on which it does not vary."""
    for axis, size in enumerate(labels.shape):
        first = labels.take([0], axis)
        if size > 1 and np.array_equal(labels, np.broadcast_to(first, labels.shape)):
            labels = first
    return labels
