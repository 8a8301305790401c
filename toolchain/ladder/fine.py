"""The last rungs: some nodes in float or on int16, or integer weights alone.

Which nodes an integer program says (`precision`), for a predicted noise E that falls in steps until the files meet the
goal. Between the last E that failed and the first that served the smallest choice is then sought by bisection, so that
no more nodes leave int8 than the goal needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import log10

from toolchain.graph.cost import node_costs
from toolchain.ladder.climb import Footing, Step
from toolchain.ladder.judge import Judge, Judgement
from toolchain.ladder.means import Means, settled
from toolchain.ladder.noise import Noise, measure_noise
from toolchain.ladder.precision import Choice, choose_fine_nodes
from toolchain.quantization import NumberFormat, QuantizedGraph
from toolchain.quantization.islands import NO_INT16_KERNEL

_STEP_DB, _MOST_DB = 3.0, 60.0
_TRIES, _BISECTIONS = 8, 3
_ALL = 1 - 1e-6
"""As much of the noise as can be taken away, but for rounding."""
_MOSTLY = 0.5

_FINE = (NumberFormat.FLOAT32, NumberFormat.W8A16)


def fine_activations(means: Means, judge: Judge, footing: Footing, known: Judgement | None) -> Step:
    """Compute the nodes in float, or on int16 where the device has no float, whose rounding costs most for what they
    compute, until the goal is met."""
    fine = next((wanted for wanted in _FINE if wanted in means.alternatives), None)
    if fine is None or known is None:
        return Step(None)
    graph = footing.settings.graph
    noise = measure_noise(footing.model, graph, means.episodes(graph), means.samples.fed_back)
    search = _Search(means, judge, footing, fine, noise)
    found_db = known.worst(means.goal).worse_db
    failed_db = found_db
    for wanted_db in _wanted(found_db, means.goal.sqnr_db or 0.0):
        if search.serves(wanted_db, found_db):
            search.narrow(failed_db, wanted_db, found_db)
            break
        failed_db = wanted_db
    else:
        search.serves_whole()
    if search.best is None:
        return Step(None)
    return _smaller(means, judge, footing, search.best[1])


def _wanted(found_db: float, goal_db: float) -> Iterator[float]:
    """SQNRs in dB to aim at, rising."""
    wanted_db = max(found_db + _STEP_DB, goal_db)
    for _ in range(_TRIES):
        if wanted_db <= _MOST_DB:
            yield wanted_db
        wanted_db += _STEP_DB


@dataclass
class _Search:
    """Choices tried so far; `best` is the shortfall of the best one and the step to it."""

    means: Means
    judge: Judge
    footing: Footing
    fine: NumberFormat
    noise: Noise
    tried: dict[frozenset[str], float] = field(default_factory=dict)
    best: tuple[float, Step] | None = None

    def serves(self, wanted_db: float, found_db: float) -> bool:
        """Whether the cheapest nodes that are predicted to reach `wanted_db` meet the goal in the files. Predictions
        are those of small errors: they are scaled by what was measured of the whole network, `found_db`."""
        predicted_db = -10 * log10(max(self.noise.total, 1e-30))
        chosen = self._chosen(float(10 ** (-(wanted_db + predicted_db - found_db) / 10)))
        return chosen is not None and self._try(chosen)

    def serves_whole(self) -> bool:
        """Whether all nodes that can compute finely meet the goal: the inputs are not rounded then either."""
        graph = self.footing.settings.graph
        nodes = frozenset(node.output for node in graph.nodes) - self._impossible()
        return bool(nodes) and self._try(Choice(nodes, 0.0, 0.0))

    def _try(self, chosen: Choice) -> bool:
        if chosen.nodes not in self.tried:
            settings = self.footing.settings
            finer = replace(settings, numbers={**settings.numbers, **dict.fromkeys(chosen.nodes, self.fine)})
            notes = {"format": str(self.fine), "nodes": sorted(chosen.nodes), "gap": chosen.gap}
            step = settled(self.footing, finer, notes)
            assert step.footing is not None
            found = self.judge.measure(step.footing.model).worst(self.means.goal)
            self.tried[chosen.nodes] = self.means.goal.shortfall(found)
            # of choices that serve the last one tried is the smallest
            if self.best is None or self.tried[chosen.nodes] <= self.best[0]:
                self.best = self.tried[chosen.nodes], step
        return self.tried[chosen.nodes] == 0.0

    def narrow(self, failed_db: float, served_db: float, found_db: float) -> None:
        """Between an aim that failed and one that served, the least that serves."""
        for _ in range(_BISECTIONS):
            middle_db = 0.5 * (failed_db + served_db)
            if self.serves(middle_db, found_db):
                served_db = middle_db
            else:
                failed_db = middle_db

    def _chosen(self, most_noise: float) -> Choice | None:
        settings, model = self.footing.settings, self.footing.model
        is_int16 = self.fine is NumberFormat.W8A16
        least = self.noise.total - self.noise.removable(settings.graph, is_int16) * _ALL
        chosen = choose_fine_nodes(
            settings.graph,
            self.noise,
            max(most_noise, least),
            already=() if is_int16 else model.float_nodes,
            impossible=self._impossible(),
            keeps_weights=is_int16,
        )
        return chosen if chosen is not None and chosen.nodes else None

    def _impossible(self) -> frozenset[str]:
        """Nodes that cannot compute finely."""
        is_int16 = self.fine is NumberFormat.W8A16
        nodes = self.footing.settings.graph.nodes
        return frozenset(node.output for node in nodes if is_int16 and node.op in NO_INT16_KERNEL)


def _smaller(means: Means, judge: Judge, footing: Footing, step: Step) -> Step:
    """`step`, or integer weights with float activations where most arithmetic would be float anyway: fewer bytes."""
    assert step.footing is not None
    share = _float_share(step.footing.model)
    other = weights_only(means, footing, None) if share > _MOSTLY else Step(None)
    if other.footing is None or not means.goal.is_met(judge.measure(other.footing.model).worst(means.goal)):
        return Step(step.footing, {**step.notes, "float_macs": share})
    return Step(other.footing, {"format": str(NumberFormat.DYNAMIC_INT8), "instead_of_float_macs": share})


def _float_share(model: QuantizedGraph) -> float:
    """Share of the multiply-adds that float nodes do."""
    macs = {node.output: cost.macs for node, cost in zip(model.graph.nodes, node_costs(model.graph), strict=True)}
    return sum(macs[name] for name in model.float_nodes) / max(sum(macs.values()), 1)


def weights_only(means: Means, footing: Footing, known: Judgement | None) -> Step:
    """Integer weights and float activations: what is left where rounded activations lose too much."""
    if NumberFormat.DYNAMIC_INT8 not in means.alternatives:
        return Step(None)
    scheme = footing.settings.scheme.with_numbers(NumberFormat.DYNAMIC_INT8)
    return settled(footing, replace(footing.settings, scheme=scheme, numbers={}))
