"""cluster: every weight tensor takes at most k values, found by k-means on the folded graph."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.compress.clustering.codebook import MOST_CLUSTERS, ClusterPlan, apply_codebooks, plan_codebooks
from toolchain.errors import OptionError
from toolchain.graph import Graph, Structure, fold, fold_structure
from toolchain.progress import SILENT, Progress
from toolchain.stages.stage import Stage
from toolchain.stages.states import TracedModel


@dataclass(frozen=True, kw_only=True)
class Cluster(Stage[TracedModel, TracedModel]):
    """One codebook of at most `clusters` values a weight tensor; masked weights stay zero.

    The graph is folded first: a batch norm folded later would scale each channel's values apart.
    Deterministic, so there is no seed.
    """

    name = "cluster"
    takes = (TracedModel,)
    gives = TracedModel

    clusters: int

    def __post_init__(self) -> None:
        if not isinstance(self.clusters, int) or not 2 <= self.clusters <= MOST_CLUSTERS:
            raise OptionError(
                f"clusters is {self.clusters!r}, and an index is a byte",
                where="cluster",
                hint=f"give a whole number from 2 to {MOST_CLUSTERS}, such as 16",
            )

    def _run(self, model: TracedModel, progress: Progress) -> TracedModel:
        graph, structure = _folded(model)
        plan = plan_codebooks(graph, self.clusters, structure, progress)
        structure = structure.with_codebooks(plan.codebooks)
        return model.after(self, facts=plan.facts(), graph=apply_codebooks(plan, graph), structure=structure)

    def plan(self, model: TracedModel, *, progress: Progress = SILENT) -> ClusterPlan:
        """The codebooks and what each loses; `print` it. Nothing is touched."""
        graph, structure = _folded(model)
        return plan_codebooks(graph, self.clusters, structure, progress)


def _folded(model: TracedModel) -> tuple[Graph, Structure]:
    graph = fold(model.graph)
    return graph, fold_structure(model.structure, model.graph, graph)
