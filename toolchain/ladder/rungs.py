"""The rungs between min-max and float islands, in the order of their cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import log10
from types import MappingProxyType
from typing import Any

import numpy as np

from toolchain.compress.rounding.learn import RoundingMethod, learn_rounding
from toolchain.errors import BudgetError
from toolchain.graph import WEIGHTED, Graph, Op
from toolchain.graph.cost import node_costs
from toolchain.ladder.climb import Footing, Rung, Step
from toolchain.ladder.goal import Goal
from toolchain.ladder.graph_changes import CHANGES, GraphChange
from toolchain.ladder.judge import Judge, Judgement
from toolchain.ladder.noise import Noise, measure_noise
from toolchain.ladder.precision import choose_coarse_weights, choose_fine_nodes
from toolchain.ladder.settings import Settings, with_learned, with_measured_ranges
from toolchain.progress import SILENT, Progress
from toolchain.quantization import QUANTIZATION_RULES, NumberFormat, QuantizedGraph
from toolchain.quantization.islands import NO_INT16_KERNEL
from toolchain.quantization.ranges import range_of
from toolchain.samples import SampleSet

_NOISE_SAMPLES = 8
_STEP_DB, _MOST_DB = 3.0, 60.0
_TRIES = 8
_ALL = 1 - 1e-6
"""As much of the noise as can be taken away, but for rounding."""
_MOSTLY = 0.5
_FEW_INTEGERS = 3
"""Of 3 bits and fewer: with so few it pays to clip, with more it only fits the samples better."""

LEARNED: Mapping[str, RoundingMethod] = {
    "learned rounding": RoundingMethod.SECOND_ORDER,
    "rounding by layers": RoundingMethod.ADAROUND,
    "rounding by blocks": RoundingMethod.BLOCK,
}
"""By the name of the rung. Learning layer by layer takes as long as block by block and reaches less: the ladder leaves
it out."""

_FINE = (NumberFormat.FLOAT32, NumberFormat.W8A16)
_UNEVEN = 4.0
"""Two bits: from here on the narrower of two joined tensors is said to be spoiled."""


@dataclass(frozen=True)
class Means:
    """What rungs work with: the samples, the goal, the formats that nodes may take, a seed, the seconds that
    learning may last, the bytes that weights may take, and
    how many batches may be learned from (None: all)."""

    samples: SampleSet
    goal: Goal
    alternatives: tuple[NumberFormat, ...]
    seed: int
    seconds: float
    most_bytes: int | None = None
    learn_from: int | None = None
    progress: Progress = SILENT

    def batches(self) -> Iterator[Sequence[np.ndarray]]:
        """The calibration samples' inputs, from the start."""
        return (batch.inputs for batch in self.samples.calibration())

    def learning_batches(self) -> Iterator[Sequence[np.ndarray]]:
        """Those that may be learned from."""
        return islice(self.batches(), self.learn_from)


def correct(footing: Footing, known: Judgement | None) -> Step:
    """Take the mean shift of rounded weights out of the biases."""
    return _settled(footing, replace(footing.settings, correct_bias=True))


def measured_ranges(means: Means, footing: Footing, known: Judgement | None) -> Step:
    """Give every activation the range that costs its readers least."""
    if footing.settings.scheme.activation_dtype is None:
        return Step(None)
    settings, methods = with_measured_ranges(footing.settings, means.batches())
    return _settled(footing, settings, {"methods": methods})


def learned(means: Means, method: RoundingMethod, footing: Footing, known: Judgement | None) -> Step:
    """Learn the integers of weights; grids of few integers learn where they end as well."""
    settings = footing.settings
    if not any(footing.settings.graph.is_constant(name) for name in footing.model.params):
        return Step(None)
    model, facts = learn_rounding(
        footing.model,
        means.learning_batches,
        method=method,
        structure=settings.structure,
        choose_scales=_fewest_integers(footing.model) <= _FEW_INTEGERS,
        seconds=means.seconds,
        seed=means.seed,
        progress=means.progress,
    )
    return Step(Footing(settings, model), {"samples": facts.samples, "weights": len(facts.layers)})


def _fewest_integers(model: QuantizedGraph) -> int:
    """The largest integer of the narrowest weight."""
    weights = {node.inputs[1] for node in model.graph.nodes if node.op in WEIGHTED}
    return min((model.params[name].q_max for name in weights if name in model.params), default=127)


def on_graph(means: Means, change: GraphChange, footing: Footing, known: Judgement | None) -> Step:
    """Change the float graph without changing what it computes, and measure its activations anew."""
    changed, notes = change(footing.settings, means.batches)
    return Step(None, notes) if changed is None else _settled(footing, changed, notes)


def separate_joins(means: Means, footing: Footing, known: Judgement | None) -> Step:
    """Join tensors of unlike ranges in float where outputs are joined: scores beside coordinates keep a scale of their
    own."""
    if NumberFormat.FLOAT32 not in means.alternatives:
        return Step(None)
    settings = footing.settings
    joins = [name for name in _output_joins(settings.graph) if _is_uneven(settings, name)]
    numbers = {**settings.numbers, **dict.fromkeys(joins, NumberFormat.FLOAT32)}
    return _settled(footing, replace(settings, numbers=numbers), {"joins": joins}) if joins else Step(None)


def _output_joins(graph: Graph) -> Iterator[str]:
    """Concatenations that reach an output through nothing but moves."""
    waiting, seen = list(graph.outputs), set()
    while waiting:
        name = waiting.pop()
        node = graph.producers.get(name)
        if node is None or name in seen or QUANTIZATION_RULES[node.op].rounds:
            continue
        seen.add(name)
        waiting += node.inputs
        if node.op is Op.CONCAT:
            yield name


def _is_uneven(settings: Settings, name: str) -> bool:
    node = settings.graph.producers[name]
    extents = [range_of(settings.graph, settings.ranges, given) for given in node.inputs]
    widths = [high - low for low, high in extents]
    return max(widths) > _UNEVEN * min(widths)


def coarse_weights(means: Means, footing: Footing, known: Judgement | None) -> Step:
    """Store the weights that suffer least in 4 bits, as many as the budget of bytes asks for."""
    settings = footing.settings
    layers = {n.output: n for n in settings.graph.nodes if n.op in WEIGHTED and n.output not in settings.numbers}
    sizes = {name: settings.graph.types[node.inputs[1]].elements for name, node in layers.items()}
    if means.most_bytes is None or NumberFormat.W4A8 not in means.alternatives or not sizes:
        return Step(None)
    numbers = {**settings.numbers, **dict.fromkeys(sizes, NumberFormat.W4A8)}
    coarse = replace(settings, numbers=numbers).quantized()
    at_8, at_4 = (
        measure_noise(model, settings.graph, means.batches(), _NOISE_SAMPLES).constants
        for model in (footing.model, coarse)
    )
    chosen = choose_coarse_weights({name: (at_8[name], at_4[name]) for name in sizes}, sizes, means.most_bytes)
    if chosen is None:
        raise BudgetError(
            f"the weights take {sum(sizes.values()) // 2:,} bytes in 4 bits, {means.most_bytes:,} are allowed",
            hint="prune the model, or allow more",
        )
    numbers = {**settings.numbers, **dict.fromkeys(chosen.nodes, NumberFormat.W4A8)}
    notes = {"int4_weights": sorted(chosen.nodes), "gap": chosen.gap}
    return _settled(footing, replace(settings, numbers=numbers), notes) if chosen.nodes else Step(None)


def fine_activations(means: Means, judge: Judge, footing: Footing, known: Judgement | None) -> Step:
    """Compute the nodes in float, or on int16 where the device has no float, whose rounding costs most for what they
    compute, until the goal is met."""
    fine = next((wanted for wanted in _FINE if wanted in means.alternatives), None)
    if fine is None or known is None:
        return Step(None)
    settings, model = footing.settings, footing.model
    noise = measure_noise(model, settings.graph, means.batches(), _NOISE_SAMPLES)
    is_int16 = fine is NumberFormat.W8A16
    impossible = [n.output for n in settings.graph.nodes if is_int16 and n.op in NO_INT16_KERNEL]
    tried: set[frozenset[str]] = {frozenset()}
    best: tuple[float, Step] | None = None
    for most in _wanted(noise, known.worst(means.goal).worse_db, means.goal):
        chosen = choose_fine_nodes(
            settings.graph,
            noise,
            max(most, noise.total - noise.removable(settings.graph.producers, is_int16) * _ALL),
            already=() if is_int16 else model.float_nodes,
            impossible=impossible,
            keeps_weights=is_int16,
        )
        if chosen is None or chosen.nodes in tried:
            continue
        tried.add(chosen.nodes)
        step = _settled(
            footing,
            replace(settings, numbers={**settings.numbers, **dict.fromkeys(chosen.nodes, fine)}),
            {"format": str(fine), "nodes": sorted(chosen.nodes), "gap": chosen.gap},
        )
        assert step.footing is not None
        found = judge.measure(step.footing.model).worst(means.goal)
        if best is None or means.goal.shortfall(found) < best[0]:
            best = means.goal.shortfall(found), step
        if means.goal.is_met(found):
            break
    if best is None:
        return Step(None)
    return _smaller(means, judge, footing, best[1])


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


def _wanted(noise: Noise, found_db: float, goal: Goal) -> Iterator[float]:
    """Predicted noise energies to try, falling. Predictions are those of small errors: they are scaled by what was
    measured of the whole network."""
    predicted_db = -10 * log10(max(noise.total, 1e-30))
    off_db = predicted_db - found_db
    wanted_db = max(found_db + _STEP_DB, goal.sqnr_db or 0.0)
    for _ in range(_TRIES):
        if wanted_db <= _MOST_DB:
            yield float(10 ** (-(wanted_db + off_db) / 10))
        wanted_db += _STEP_DB


def weights_only(means: Means, footing: Footing, known: Judgement | None) -> Step:
    """Integer weights and float activations: what is left where rounded activations lose too much."""
    if NumberFormat.DYNAMIC_INT8 not in means.alternatives:
        return Step(None)
    scheme = footing.settings.scheme.with_numbers(NumberFormat.DYNAMIC_INT8)
    return _settled(footing, replace(footing.settings, scheme=scheme, numbers={}))


def _settled(footing: Footing, settings: Settings, notes: Mapping[str, Any] = MappingProxyType({})) -> Step:
    return Step(Footing(settings, with_learned(settings.quantized(), footing.model)), notes)


def make_rungs(means: Means, judge: Judge) -> tuple[Rung, ...]:
    """All rungs above min-max."""
    return (*_plain_rungs(means), Rung("finer activations", partial(fine_activations, means, judge)), _last_rung(means))


def take_rungs(means: Means, settings: Settings, names: Sequence[str]) -> Footing:
    """What the rungs of these names lead to, without judging any."""
    footing = Footing(settings, settings.quantized())
    for rung in _plain_rungs(means):
        if rung.name in names:
            footing = rung.take(footing, None).footing or footing
    return footing


def _plain_rungs(means: Means) -> tuple[Rung, ...]:
    """Those that need no judge."""
    return (
        Rung("bias correction", correct, is_free=True),
        Rung("4-bit weights", partial(coarse_weights, means), is_needed=means.most_bytes is not None),
        Rung("measured ranges", partial(measured_ranges, means)),
        *(Rung(name, partial(on_graph, means, change)) for name, change in CHANGES.items()),
        Rung("output joins", partial(separate_joins, means)),
        *(Rung(name, partial(learned, means, method), learns=True) for name, method in LEARNED.items()),
    )


def _last_rung(means: Means) -> Rung:
    return Rung("weights only", partial(weights_only, means))
