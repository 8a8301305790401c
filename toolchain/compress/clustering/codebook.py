"""Codebooks: a weight tensor that takes at most k values, found by k-means (Deep Compression, Han et al.,
arXiv 1510.00149, section 3).

    minimise  sum_i |w_i - values[indices_i]|^2        values (k,) float32, indices uint8 of w's shape

On a line a cluster is a run of the sorted weights, so that after one sort, with cumulative sums of w and w^2,
a step of Lloyd's algorithm (boundaries halfway between centroids, centroids to the means of their runs) costs
O(k log n). The start is linear, k values evenly from the least to the largest weight, which keeps the rare
large weights apart; Lloyd's algorithm then ends in a local minimum, with centroids where few weights or none
are. So the centroids that cost least to lose are moved into the clusters that gain most by a second one, as
long as the sum of squares falls. No chance in it.

Where a mask holds, zero is a value of its own that masked weights alone take: sparsity survives, also when
the values are trained, and the k - 1 others are fitted to what is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.compress.pruning.magnitude import weight_names
from toolchain.compress.tables import format_table
from toolchain.graph import Codebook, Graph, Structure
from toolchain.progress import SILENT, Progress

MOST_CLUSTERS = 256  # an index is a byte
_LLOYD_STEPS = 300
_ENOUGH = 1e-6  # relative fall of the sum of squares below which a local minimum counts as reached
# Joining two equal clusters costs 8 times what splitting one gains, before the neighbours have made room.
_HOPE = 8


@dataclass(frozen=True, eq=False)
class ClusterPlan:
    """A codebook a weight tensor; `errors` is |w - decoded| / |w| (L2) of each."""

    clusters: int
    codebooks: Mapping[str, Codebook]
    errors: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        tensors = {n: {"values": len(b.values), "error": self.errors[n]} for n, b in self.codebooks.items()}
        return {"clusters": self.clusters, "tensors": tensors}

    def __str__(self) -> str:
        rows = [
            (name, f"{book.indices.size:,}", f"{len(book.values)}", f"{self.errors[name]:.2%}", "")
            for name, book in self.codebooks.items()
        ]
        table = format_table(("weight", "weights", "values", "relative error", ""), rows)
        return f"cluster each weight tensor to at most {self.clusters} values\n{table}"


def plan_codebooks(
    graph: Graph, clusters: int, structure: Structure | None = None, progress: Progress = SILENT
) -> ClusterPlan:
    """A codebook for every weight of a layer; the masks of `structure` keep their zeros."""
    masks = structure.masks if structure else {}
    books, errors = {}, {}
    names = weight_names(graph)
    for name in progress.track(names, description="cluster", total=len(names)):
        weight = graph.constants[name]
        books[name] = fit_codebook(weight, clusters, masks.get(name))
        norm = float(np.linalg.norm(weight)) or 1.0
        errors[name] = float(np.linalg.norm(weight - books[name].decode())) / norm
    return ClusterPlan(clusters, books, errors)


def apply_codebooks(plan: ClusterPlan, graph: Graph) -> Graph:
    """`graph` with each weight replaced by the nearest value of its codebook."""
    return graph.with_constants({name: book.decode() for name, book in plan.codebooks.items()})


def fit_codebook(weight: np.ndarray, clusters: int, mask: np.ndarray | None = None) -> Codebook:
    """The codebook of one tensor, 2 <= `clusters` <= 256, values ascending, each in use. `mask`: True =
    kept."""
    if not 2 <= clusters <= MOST_CLUSTERS:
        raise ValueError(f"a codebook has 2 to {MOST_CLUSTERS} values, not {clusters}")
    if mask is None or mask.all():
        values = fit_values(weight, clusters)
        return _used(values, nearest(weight, values))
    survivors = weight[mask]
    values = fit_values(survivors, clusters - 1)
    kept = _used(values, nearest(survivors, values))
    zero = int(np.searchsorted(kept.values, 0.0))
    indices = np.full(weight.shape, zero, np.uint8)
    indices[mask] = kept.indices + (kept.indices >= zero)
    return Codebook(np.insert(kept.values, zero, np.float32(0)), indices)


def fit_values(weights: np.ndarray, clusters: int) -> np.ndarray:
    """At most `clusters` values, ascending, float32; exact where so few are distinct."""
    ordered = np.sort(weights, axis=None)
    distinct = ordered[np.diff(ordered, prepend=-np.inf) > 0]
    if len(distinct) <= clusters:
        return distinct
    line = SortedLine.of(ordered)
    centroids = line.settle(np.linspace(float(ordered[0]), float(ordered[-1]), clusters))
    return np.unique(_relocate(line, centroids).astype(np.float32))


def nearest(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of the nearest of the ascending `values` for each weight, uint8."""
    halfway = (values[1:].astype(np.float64) + values[:-1]) / 2
    indices: np.ndarray = np.searchsorted(halfway, weights).astype(np.uint8)
    return indices


def _used(values: np.ndarray, indices: np.ndarray) -> Codebook:
    """The codebook without the values that no weight takes."""
    used = np.bincount(indices.reshape(-1), minlength=len(values)) > 0
    return Codebook(values[used], (np.cumsum(used) - 1)[indices].astype(np.uint8))


@dataclass(frozen=True, eq=False)
class SortedLine:
    """Sorted weights `(n,)` and the cumulative sums `(n + 1,)`, float64, of w and w^2."""

    weights: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, ordered: np.ndarray) -> SortedLine:
        exact = ordered.astype(np.float64)
        sums, squares = np.zeros((2, len(exact) + 1))
        np.cumsum(exact, out=sums[1:])
        np.cumsum(np.square(exact), out=squares[1:])
        return cls(ordered, sums, squares)

    def edges(self, centroids: np.ndarray) -> np.ndarray:
        """`(k + 1,)`: cluster c is the weights `edges[c]` to `edges[c + 1]`, those nearest its centroid."""
        halfway = ((centroids[1:] + centroids[:-1]) / 2).astype(self.weights.dtype)
        return np.concatenate([[0], np.searchsorted(self.weights, halfway), [len(self.weights)]])

    def means(self, edges: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Mean of each run; that of `empty` where a run has no weights."""
        counts, sums = np.diff(edges), np.diff(self.sums[edges])
        return np.where(counts > 0, sums / np.maximum(counts, 1), empty)

    def inertia(self, edges: np.ndarray) -> np.ndarray:
        """Sum of squared distances to the mean, of each run."""
        counts, sums = np.diff(edges), np.diff(self.sums[edges])
        spread = np.diff(self.squares[edges]) - np.square(sums) / np.maximum(counts, 1)
        inertia: np.ndarray = np.maximum(spread, 0.0)
        return inertia

    def settle(self, centroids: np.ndarray) -> np.ndarray:
        """Lloyd's algorithm from `centroids` (ascending) to a local minimum."""
        before = np.inf
        for _ in range(_LLOYD_STEPS):
            edges = self.edges(centroids)
            after = float(self.inertia(edges).sum())
            centroids = self.means(edges, centroids)
            if after >= before * (1 - _ENOUGH):
                break
            before = after
        return centroids


def _relocate(line: SortedLine, centroids: np.ndarray) -> np.ndarray:
    """Move centroids from where they cost least to lose to where a second one gains most, many at once while
    that helps, then fewer."""
    best = float(line.inertia(line.edges(centroids)).sum())
    most = len(centroids)
    while most:
        moved = _moved(line, centroids, most)
        if moved is None:
            return centroids
        settled = line.settle(moved)
        total = float(line.inertia(line.edges(settled)).sum())
        if total < best * (1 - _ENOUGH):
            centroids, best = settled, total
        else:
            most //= 2
    return centroids


def _moved(line: SortedLine, centroids: np.ndarray, most: int) -> np.ndarray | None:
    """At most `most` centroids moved, each where that may gain; None where there is no such move."""
    edges = line.edges(centroids)
    losses = _losses(edges, centroids)
    gains, halves = _gains(line, edges, centroids)
    lost: set[int] = set()
    split: set[int] = set()
    for a, b in zip(np.argsort(losses, kind="stable"), np.argsort(-gains, kind="stable"), strict=False):
        if losses[a] >= _HOPE * gains[b] or len(split) == most:
            break
        # the cluster that takes over the lost one's weights must be there, and as it was
        if not {a, a + 1, b} & split and not {b, b - 1, a - 1, a + 1} & lost and b not in (a, a + 1):
            lost.add(int(a))
            split.add(int(b))
    if not split:
        return None
    kept = [c for c in range(len(centroids)) if c not in lost | split]
    return np.sort(np.concatenate([centroids[kept], halves[sorted(split)].reshape(-1)]))


def _losses(edges: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """`(k - 1,)`: what joining each cluster to its right neighbour adds to the sum of squares."""
    counts = np.diff(edges).astype(np.float64)
    left, right = counts[:-1], counts[1:]
    joined: np.ndarray = left * right / np.maximum(left + right, 1) * np.square(np.diff(centroids))
    return joined


def _gains(line: SortedLine, edges: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(k,)`: what splitting each cluster at its mean takes off the sum of squares, and `(k, 2)` the halves'
    means."""
    middle = np.searchsorted(line.weights, centroids.astype(line.weights.dtype))
    middle = np.clip(middle, edges[:-1], edges[1:])
    halved = np.stack([edges[:-1], middle, edges[1:]], axis=1)
    counts = np.diff(halved, axis=1)
    sums = np.diff(line.sums[halved], axis=1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), centroids[:, None])
    gains: np.ndarray = counts[:, 0] * counts[:, 1] / np.maximum(counts.sum(1), 1) * np.square(np.diff(means)[:, 0])
    return gains, means
