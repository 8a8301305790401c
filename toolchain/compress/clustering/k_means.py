"""k-means on a line, as weights lie: sorted once, a step of Lloyd's algorithm costs O(k log n).

A cluster is a run of the sorted weights; with cumulative sums of w and w^2 its mean and its sum of squares come from
its ends. Boundaries lie halfway between centroids, and centroids move to the means of their runs, until the sum of
squares falls no further. Where they start:

* **linear**: evenly from the least to the largest weight, which keeps the rare large weights apart (Han et al., arXiv
  1510.00149, section 3.2, who find it best);
* **density**: at the quantiles (2i + 1) / 2k, as many weights to each;
* **k-means++**: each next one at a weight drawn with probability proportional to its squared distance from the nearest
  so far (Arthur and Vassilvitskii, SODA 2007).

Lloyd's algorithm ends in a local minimum, with centroids where few weights or none are. So the centroids that cost
least to lose are moved into the clusters that gain most by a second one, as long as the sum of squares falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

_LLOYD_STEPS = 300
_ENOUGH = 1e-6  # relative fall of the sum of squares below which a local minimum counts as reached
# Joining two equal clusters costs 8 times what splitting one gains, before the neighbours have made room.
_HOPE = 8
_NEARLY_NONE = 1e-9  # what an empty cluster weighs where two are joined


class Start(StrEnum):
    """Where centroids start, see the module."""

    LINEAR = "linear"
    DENSITY = "density"
    PLUS_PLUS = "k-means++"


def fit_values(weights: np.ndarray, clusters: int, start: Start = Start.LINEAR, seed: int = 0) -> np.ndarray:
    """At most `clusters` values, ascending, float32; exact where so few are distinct. `seed` is k-means++'s."""
    ordered = np.sort(weights, axis=None)
    distinct = ordered[np.diff(ordered, prepend=-np.inf) > 0]
    if len(distinct) <= clusters:
        return distinct
    line = SortedLine.of(ordered)
    centroids = line.settle(_started(ordered, distinct, clusters, start, seed))
    return np.unique(relocate(line, centroids).astype(np.float32))


def nearest(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of the nearest of the ascending `values` for each weight, uint8."""
    halfway = (values[1:].astype(np.float64) + values[:-1]) / 2
    indices: np.ndarray = np.searchsorted(halfway, weights).astype(np.uint8)
    return indices


def _started(ordered: np.ndarray, distinct: np.ndarray, clusters: int, start: Start, seed: int) -> np.ndarray:
    """Ascending centroids `(clusters,)`."""
    if start == Start.DENSITY:
        places = (2 * np.arange(clusters) + 1) * len(ordered) // (2 * clusters)
        return ordered[places].astype(np.float64)
    if start == Start.PLUS_PLUS:
        return _plus_plus(ordered.astype(np.float64), clusters, np.random.default_rng(seed))
    return np.linspace(float(distinct[0]), float(distinct[-1]), clusters)


def _plus_plus(ordered: np.ndarray, clusters: int, random: np.random.Generator) -> np.ndarray:
    chosen = [ordered[random.integers(len(ordered))]]
    distances = np.square(ordered - chosen[0])
    for _ in range(clusters - 1):
        sums = np.cumsum(distances)
        place = min(int(np.searchsorted(sums, random.random() * sums[-1], side="right")), len(ordered) - 1)
        chosen.append(ordered[place])
        np.minimum(distances, np.square(ordered - chosen[-1]), out=distances)
    return np.sort(np.array(chosen))


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


def relocate(line: SortedLine, centroids: np.ndarray) -> np.ndarray:
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
    wanted = [int(b) for b in np.argsort(-gains, kind="stable")]
    for a in map(int, np.argsort(losses, kind="stable")):
        # the cluster that takes over the lost one's weights must be there, and as it was
        may = (b for b in wanted if not {a, a + 1, b} & split and not {b, b - 1, a - 1, a + 1} & lost)
        place = next((b for b in may if b not in (a, a + 1)), None)
        if place is None or losses[a] >= _HOPE * gains[place] or len(split) == most:
            break
        lost.add(a)
        split.add(place)
        wanted.remove(place)
    if not split:
        return None
    joined = sorted(lost)
    counts = np.diff(edges).astype(np.float64)[np.stack([joined, np.array(joined) + 1])] + _NEARLY_NONE
    both = (centroids[joined] * counts[0] + centroids[np.array(joined) + 1] * counts[1]) / counts.sum(0)
    kept = [c for c in range(len(centroids)) if c not in lost | split | {a + 1 for a in lost}]
    return np.sort(np.concatenate([centroids[kept], both, halves[sorted(split)].reshape(-1)]))


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
