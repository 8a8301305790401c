"""The rungs between min-max and float islands, in the order of their cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from toolchain.compress.rounding.learn import RoundingMethod, learn_rounding
from toolchain.errors import BudgetError
from toolchain.graph import WEIGHTED, Graph, Op
from toolchain.ladder.climb import Footing, Rung, Step
from toolchain.ladder.fine import fine_activations, weights_only
from toolchain.ladder.graph_changes import CHANGES, GraphChange
from toolchain.ladder.judge import Judge, Judgement
from toolchain.ladder.means import Means, settled
from toolchain.ladder.noise import measure_noise
from toolchain.ladder.precision import choose_coarse_weights
from toolchain.ladder.settings import Settings, with_measured_ranges
from toolchain.quantization import QUANTIZATION_RULES, NumberFormat, QuantizedGraph
from toolchain.quantization.ranges import range_of

_FEW_INTEGERS = 3
"""Of 3 bits and fewer: with so few it pays to clip, with more it only fits the samples better."""

LEARNED: Mapping[str, RoundingMethod] = {
    "learned rounding": RoundingMethod.SECOND_ORDER,
    "rounding by layers": RoundingMethod.ADAROUND,
    "rounding by blocks": RoundingMethod.BLOCK,
}
"""By the name of the rung."""

ONLY_ASKED_FOR = frozenset({"rounding by layers"})
"""Learning layer by layer takes as long as block by block and reaches less: the ladder leaves it out."""

_UNEVEN = 4.0
"""Two bits: from here on the narrower of two joined tensors is said to be spoiled."""


def correct(footing: Footing, known: Judgement | None) -> Step:
    """Take the mean shift of rounded weights out of the biases."""
    return settled(footing, replace(footing.settings, correct_bias=True))


def measured_ranges(means: Means, footing: Footing, known: Judgement | None) -> Step:
    """Give every activation the range that costs its readers least."""
    if footing.settings.scheme.activation_dtype is None:
        return Step(None)
    settings, methods = with_measured_ranges(footing.settings, means.batches())
    return settled(footing, settings, {"methods": methods})


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
    return Step(None, notes) if changed is None else settled(footing, changed, notes)


def separate_joins(means: Means, footing: Footing, known: Judgement | None) -> Step:
    """Join tensors of unlike ranges in float where outputs are joined: scores beside coordinates keep a scale of their
    own."""
    if NumberFormat.FLOAT32 not in means.alternatives:
        return Step(None)
    settings = footing.settings
    joins = [name for name in _output_joins(settings.graph) if _is_uneven(settings, name)]
    numbers = {**settings.numbers, **dict.fromkeys(joins, NumberFormat.FLOAT32)}
    return settled(footing, replace(settings, numbers=numbers), {"joins": joins}) if joins else Step(None)


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
        measure_noise(model, settings.graph, means.episodes(settings.graph), means.samples.fed_back).constants
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
    return settled(footing, replace(settings, numbers=numbers), notes) if chosen.nodes else Step(None)


def make_rungs(means: Means, judge: Judge) -> tuple[Rung, ...]:
    """All rungs above min-max."""
    plain = (rung for rung in _plain_rungs(means) if rung.name not in ONLY_ASKED_FOR)
    return (*plain, Rung("finer activations", partial(fine_activations, means, judge)), _last_rung(means))


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
