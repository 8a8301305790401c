"""Layer pruning: the blocks whose absence the outputs feel least go, one after the other.

For the outputs y of the graph as it was given, y_b of the graph without block b, and the share s_b that b has in what
the ratio is of (layers, MACs, parameters, bytes, latency),

    error_b = sum |y_b - y|^2 / sum |y|^2          over all outputs and at most `SAMPLES` samples

and the block with the least error_b / s_b goes. All that is left is measured again after each, since the second of two
blocks in a row may matter only once the first is gone. The plan stops where the ratio is reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.compress.pruning.blocks import Block, find_blocks, kept_structure, layer_count, remove_block
from toolchain.compress.pruning.choices import Measure
from toolchain.compress.pruning.costs import COSTS, Cost, count_bytes, count_macs, count_parameters
from toolchain.compress.tables import format_table
from toolchain.engine.run import predict
from toolchain.errors import OptionError
from toolchain.graph import Graph, Structure
from toolchain.samples import Batch

SAMPLES = 64


@dataclass(frozen=True)
class Removal:
    """One block: `error`, noise to signal at the outputs where it goes too (after those before it in a plan), and what
    its absence saves."""

    block: Block
    error: float
    layers_saved: int
    macs_saved: int
    parameters_saved: int
    latency_saved_ms: float | None = None

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.block.name,
            "kind": self.block.kind,
            "nodes": list(self.block.nodes),
            "error": self.error,
            "layers_saved": self.layers_saved,
            "macs_saved": self.macs_saved,
            "parameters_saved": self.parameters_saved,
            "latency_saved_ms": self.latency_saved_ms,
        }

    def row(self, fate: str) -> tuple[str, ...]:
        saved = "" if self.latency_saved_ms is None else f"{self.latency_saved_ms:.3g}"
        numbers = (f"{self.error:.3g}", f"{self.macs_saved:,}", f"{self.parameters_saved:,}", saved)
        return (str(self.block), *numbers, fate)


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What goes, in order (`removed`), and what every block alone would have cost (`ranking`, the least first). MACs,
    parameters, bytes (of an int8 file), layers and predicted ms are (before, after); `graph` is what is left."""

    ratio: float
    of: Measure
    removed: tuple[Removal, ...]
    ranking: tuple[Removal, ...]
    graph: Graph
    layers: tuple[int, int]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    latency_ms: tuple[float, float] | None = None

    def facts(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "ratio": self.ratio,
            "of": self.of.value,
            "layers": list(self.layers),
            "macs": list(self.macs),
            "parameters": list(self.parameters),
            "bytes": list(self.bytes),
            **({} if self.latency_ms is None else {"latency_ms": list(self.latency_ms)}),
            "removed": [removal.facts() for removal in self.removed],
            "ranking": [removal.facts() for removal in self.ranking],
        }

    def __str__(self) -> str:
        what = "layers" if self.of is Measure.COUNT else f"{self.of.value.replace('macs', 'MACs')} in whole layers"
        gone = {removal.block.name for removal in self.removed}
        rows = [removal.row("goes") for removal in self.removed]
        rows += [removal.row("stays") for removal in self.ranking if removal.block.name not in gone]
        ms = "" if self.latency_ms is None else "{:.3g} -> {:.3g}".format(*self.latency_ms)
        counts = (f"{a:,} -> {b:,}" for a, b in (self.macs, self.parameters))
        total = ("total", "", *counts, ms, "{} -> {} layers".format(*self.layers))
        header = ("block", "error", "MACs saved", "parameters saved", "ms saved", "")
        return f"remove {self.ratio:.0%} of the {what}, by the outputs' error\n{format_table(header, [*rows, total])}"


def plan_layers(
    graph: Graph,
    *,
    ratio: float,
    of: Measure = Measure.COUNT,
    batches: Iterable[Batch] | None,
    cost: Cost | None = None,
    whole: Graph | None = None,
) -> LayerPlan:
    """Which layers and blocks go. `cost` predicts the latency in ms, and is needed where the ratio is of it; the ratio
    is of the `whole` graph where something of it is gone already.

    Raises OptionError without samples, without `cost` where that is needed, or where no block can go.
    """
    if batches is None:
        raise OptionError("what a layer is worth is measured on samples, and there are none", hint="give samples")
    measure = _measure(of, cost)
    samples = _first(batches)
    outputs = predict(graph, samples)
    whole = whole or graph
    budget = (1 - ratio) * measure(whole, whole.types)
    present, removed, ranking = graph, list[Removal](), tuple[Removal, ...]()
    while measure(present, present.types) > budget:
        found = [_removal(present, block, samples, outputs, cost) for block in find_blocks(present)]
        worth = [(_worth(present, removal, measure), removal) for removal in found]
        # of equals the one that saves most
        ordered = tuple(r for (value, _), r in sorted(worth, key=lambda pair: pair[0]) if np.isfinite(value))
        ranking = ranking or ordered
        if not ordered:
            break
        removed.append(ordered[0])
        present = remove_block(present, ordered[0].block)
    if not removed and measure(graph, graph.types) > budget:
        raise OptionError("no layer of the model can go", hint="prune channels: its blocks have no shortcut")
    return _plan(graph, present, ratio, of, tuple(removed), ranking, cost)


def _plan(
    graph: Graph,
    left: Graph,
    ratio: float,
    of: Measure,
    removed: tuple[Removal, ...],
    ranking: tuple[Removal, ...],
    cost: Cost | None,
) -> LayerPlan:
    pairs = [
        (count(graph, graph.types), count(left, left.types)) for count in (count_macs, count_parameters, count_bytes)
    ]
    latency = None if cost is None else (cost(graph, graph.types), cost(left, left.types))
    macs, parameters, sizes = pairs
    layers = (layer_count(graph), layer_count(left))
    return LayerPlan(ratio, of, removed, ranking, left, layers, macs, parameters, sizes, latency)


def apply_layers(plan: LayerPlan, structure: Structure) -> tuple[Graph, Structure]:
    """The graph that is left, with what `structure` says of its constants."""
    return plan.graph, kept_structure(structure, plan.graph)


def _measure(of: Measure, cost: Cost | None) -> Cost:
    if of is Measure.COUNT:
        return lambda graph, types: layer_count(graph)
    found = cost if of is Measure.LATENCY else COSTS[of]
    if found is None:
        raise OptionError("latency is predicted by a model of the device, and there is none", hint="give cost=")
    return found


def _first(batches: Iterable[Batch]) -> list[tuple[np.ndarray, ...]]:
    samples, count = [], 0
    for batch in batches:
        samples.append(tuple(array[: SAMPLES - count] for array in batch.inputs))
        count += len(batch)
        if count >= SAMPLES:
            break
    return samples


def _removal(
    graph: Graph,
    block: Block,
    samples: Sequence[Sequence[np.ndarray]],
    outputs: Sequence[np.ndarray],
    cost: Cost | None,
) -> Removal:
    left = remove_block(graph, block)
    macs = count_macs(graph, graph.types) - count_macs(left, left.types)
    parameters = count_parameters(graph, graph.types) - count_parameters(left, left.types)
    ms = None if cost is None else cost(graph, graph.types) - cost(left, left.types)
    error = _relative_error(outputs, predict(left, samples))
    return Removal(block, error, layer_count(graph) - layer_count(left), macs, parameters, ms)


def _relative_error(wanted: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(wanted, found, strict=True)]
    signal = sum(float(np.square(a).sum()) for a, _ in pairs)
    return sum(float(np.square(a - b).sum()) for a, b in pairs) / max(signal, 1e-300)


def _worth(graph: Graph, removal: Removal, measure: Cost) -> tuple[float, float]:
    """Error a share saved, and the share, negative."""
    left = remove_block(graph, removal.block)
    saved = 1 - measure(left, left.types) / measure(graph, graph.types)
    return (removal.error / saved if saved > 0 else float("inf"), -saved)
