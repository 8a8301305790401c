"""Codebooks: weights that take at most k values, found by k-means (Deep Compression, Han et al., arXiv 1510.00149,
section 3).

    minimise  sum_i |w_i - values[indices_i]|^2        values (n,) float32, indices of w's shape

One codebook serves a whole weight tensor, a group of its output channels, or each of them. The fewer weights one has to
fit, the less it loses; what each kind is worth a device's profile says.

Where a mask holds, zero is a value of its own that masked weights alone take: sparsity survives, also when
the values are trained, and the k - 1 others are fitted to what is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from toolchain.compress.clustering.filters import TiedFilters, tie_filters
from toolchain.compress.clustering.k_means import Start, fit_values, nearest
from toolchain.compress.pruning.magnitude import weight_names
from toolchain.compress.tables import format_table
from toolchain.graph import Codebook, Graph, Structure
from toolchain.progress import SILENT, Progress

MOST_CLUSTERS = 256  # an index is a byte


class Granularity(StrEnum):
    """What shares a codebook."""

    PER_TENSOR = "per_tensor"
    PER_GROUP = "per_group"
    PER_CHANNEL = "per_channel"


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """`clusters` values a codebook; `group_size` output channels share one where the granularity is per group; filters
    nearer than `tolerance` are tied first (`filters`); `start` and `seed` are those of `k_means`."""

    clusters: int
    granularity: Granularity = Granularity.PER_TENSOR
    group_size: int = 16
    start: Start = Start.LINEAR
    tolerance: float = 0.0
    seed: int = 0

    def groups(self, owners: np.ndarray) -> np.ndarray:
        """The codebook `(O,)` of each output channel; copies of a filter have that of the filter they copy."""
        if self.granularity == Granularity.PER_TENSOR:
            return np.zeros(len(owners), np.int64)
        size = 1 if self.granularity == Granularity.PER_CHANNEL else self.group_size
        groups: np.ndarray = np.unique(owners // size, return_inverse=True)[1]
        return groups


@dataclass(frozen=True, eq=False)
class ClusterPlan:
    """A codebook a weight tensor; `errors` is |w - decoded| / |w| (L2) of each, `tied` the filters that are copies of
    another, `masks` those that tying has tightened."""

    clusters: int
    codebooks: Mapping[str, Codebook]
    errors: Mapping[str, float]
    tied: Mapping[str, int] = field(default_factory=dict)
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        tensors = {
            name: {
                "codebooks": len(book.sizes),
                "values": max(book.sizes),
                "error": self.errors[name],
                "tied_filters": self.tied.get(name, 0),
            }
            for name, book in self.codebooks.items()
        }
        return {"clusters": self.clusters, "tensors": tensors}

    def __str__(self) -> str:
        header = ("weight", "weights", "codebooks", "values", "tied filters", "relative error", "")
        rows = [
            (name, f"{book.indices.size:,}", f"{len(book.sizes)}", f"{max(book.sizes)}",
             f"{self.tied.get(name, 0)} of {len(book.indices)}", f"{self.errors[name]:.2%}", "")
            for name, book in self.codebooks.items()
        ]  # fmt: skip
        return f"cluster each weight tensor, at most {self.clusters} values a codebook\n{format_table(header, rows)}"


def plan_codebooks(
    graph: Graph, clustering: Clustering | int, structure: Structure | None = None, progress: Progress = SILENT
) -> ClusterPlan:
    """Codebooks for every weight of a layer; the masks of `structure` hold. A whole number is `clusters`."""
    chosen = clustering if isinstance(clustering, Clustering) else Clustering(clusters=clustering)
    held = structure.masks if structure else {}
    books, errors, tied, masks = {}, {}, {}, {}
    names = weight_names(graph)
    for name in progress.track(names, description="cluster", total=len(names)):
        weight = graph.constants[name]
        filters = tie_filters(weight, chosen.tolerance, held.get(name))
        books[name] = fit_codebooks(filters, chosen)
        norm = float(np.linalg.norm(weight)) or 1.0
        errors[name] = float(np.linalg.norm(weight - books[name].decode())) / norm
        if filters.count:
            tied[name] = filters.count
            if filters.mask is not None:
                masks[name] = filters.mask
    return ClusterPlan(chosen.clusters, books, errors, tied, masks)


def apply_codebooks(plan: ClusterPlan, graph: Graph) -> Graph:
    """`graph` with each weight replaced by the nearest value of its codebook."""
    return graph.with_constants({name: book.decode() for name, book in plan.codebooks.items()})


def fit_codebooks(filters: TiedFilters, clustering: Clustering) -> Codebook:
    """The codebooks of one tensor, one after the other."""
    groups = clustering.groups(filters.owners)
    weight, mask = filters.weight, filters.mask
    books = []
    for group in range(int(groups.max(initial=0)) + 1):
        rows = groups == group
        kept = None if mask is None else mask[rows]
        books.append(fit_codebook(weight[rows], clustering.clusters, kept, clustering.start, clustering.seed))
    if len(books) == 1:
        return books[0]
    starts = np.cumsum([0, *(len(book.values) for book in books)])
    indices = np.zeros(weight.shape, np.min_scalar_type(int(starts[-1]) - 1))
    for group, book in enumerate(books):
        indices[groups == group] = book.indices + starts[group]
    return Codebook(np.concatenate([book.values for book in books]), indices, tuple(len(b.values) for b in books))


def fit_codebook(
    weight: np.ndarray,
    clusters: int,
    mask: np.ndarray | None = None,
    start: Start = Start.LINEAR,
    seed: int = 0,
) -> Codebook:
    """One codebook, 2 <= `clusters` <= 256, values ascending, each in use. `mask`: True = kept."""
    if not 2 <= clusters <= MOST_CLUSTERS:
        raise ValueError(f"a codebook has 2 to {MOST_CLUSTERS} values, not {clusters}")
    if mask is None or mask.all():
        values = fit_values(weight, clusters, start, seed)
        return _used(values, nearest(weight, values))
    survivors = weight[mask]
    values = fit_values(survivors, clusters - 1, start, seed)
    kept = _used(values, nearest(survivors, values))
    zero = int(np.searchsorted(kept.values, 0.0))
    indices = np.full(weight.shape, zero, np.uint8)
    indices[mask] = kept.indices + (kept.indices >= zero)
    return Codebook(np.insert(kept.values, zero, np.float32(0)), indices)


def _used(values: np.ndarray, indices: np.ndarray) -> Codebook:
    """The codebook without the values that no weight takes."""
    used = np.bincount(indices.reshape(-1), minlength=len(values)) > 0
    return Codebook(values[used], (np.cumsum(used) - 1)[indices].astype(np.uint8))
