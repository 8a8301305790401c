"""cluster: weights take at most k values a codebook, found by k-means on the folded graph."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.compress.clustering.codebook import (
    MOST_CLUSTERS,
    Clustering,
    ClusterPlan,
    Granularity,
    apply_codebooks,
    plan_codebooks,
)
from toolchain.compress.clustering.k_means import Start
from toolchain.errors import OptionError, raise_collected
from toolchain.graph import Graph, Structure, fold, fold_structure
from toolchain.progress import SILENT, Progress
from toolchain.stages.stage import Stage
from toolchain.stages.states import TracedModel


@dataclass(frozen=True, kw_only=True)
class Cluster(Stage[TracedModel, TracedModel]):
    """Codebooks of at most `clusters` values; masked weights stay zero.

    `granularity` says what shares a codebook: a weight tensor, `group_size` of its output channels, or each of them. A
    codebook a channel leaves int8 its scale a channel; where channels share one, the tensor has one scale. `start` is
    where k-means starts (see `toolchain.compress.clustering.k_means`), `seed` what k-means++ draws from.

    With `tie_filters` greater than 0 whole filters nearer than that, relative to their size, become one first (see
    `toolchain.compress.clustering.filters`): it shrinks the packed file, neither the one that runs nor its latency.

    The graph is folded first: a batch norm folded later would scale each channel's values apart.
    """

    name = "cluster"
    takes = (TracedModel,)
    gives = TracedModel

    clusters: int
    granularity: Granularity = Granularity.PER_TENSOR
    group_size: int = 16
    start: Start = Start.LINEAR
    tie_filters: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        findings = []
        if not isinstance(self.clusters, int) or not 2 <= self.clusters <= MOST_CLUSTERS:
            findings.append(
                f"clusters is {self.clusters!r}, and an index is a byte: "
                f"give a whole number from 2 to {MOST_CLUSTERS}, such as 16"
            )
        for name, kind in (("granularity", Granularity), ("start", Start)):
            if getattr(self, name) not in list(kind):
                findings.append(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(kind)}")
        if not isinstance(self.group_size, int) or self.group_size < 1:
            findings.append(f"group_size is {self.group_size!r}: give a whole number from 1, such as 16")
        if not isinstance(self.tie_filters, (int, float)) or not 0 <= self.tie_filters < 1:
            findings.append(f"tie_filters is {self.tie_filters!r}: give a distance from 0 to less than 1, such as 0.1")
        if not isinstance(self.seed, int) or self.seed < 0:
            findings.append(f"seed is {self.seed!r}: give a whole number from 0")
        raise_collected(OptionError, "cluster cannot work with these options:", findings)

    def _run(self, model: TracedModel, progress: Progress) -> TracedModel:
        graph, structure = _folded(model)
        plan = plan_codebooks(graph, self._clustering, structure, progress)
        structure = structure.with_masks(plan.masks).with_codebooks(plan.codebooks)
        return model.after(self, facts=plan.facts(), graph=apply_codebooks(plan, graph), structure=structure)

    def plan(self, model: TracedModel, *, progress: Progress = SILENT) -> ClusterPlan:
        """The codebooks and what each loses; `print` it. Nothing is touched."""
        graph, structure = _folded(model)
        return plan_codebooks(graph, self._clustering, structure, progress)

    @property
    def _clustering(self) -> Clustering:
        return Clustering(
            clusters=self.clusters,
            granularity=Granularity(self.granularity),
            group_size=self.group_size,
            start=Start(self.start),
            tolerance=self.tie_filters,
            seed=self.seed,
        )


def _folded(model: TracedModel) -> tuple[Graph, Structure]:
    graph = fold(model.graph)
    return graph, fold_structure(model.structure, model.graph, graph)
