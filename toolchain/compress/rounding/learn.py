"""Learned rounding of weights: which integers, so that the network and not each weight comes out right.

Three methods walk the graph once, from its inputs on, and learn each part from what the parts before it, already
rounded, really give:

* `second_order`: layer by layer from second moments (`second_order`); seconds.
* `adaround`: a layer and the activation behind it, by gradient descent from there (`reconstruction`).
* `block`: blocks between cut points, all their weights together.

Time is given in seconds of this kind of work on one core of a present machine, and spent as multiply-accumulates, so
that the same samples, seed and seconds give the same integers wherever they are learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import torch

from toolchain.compress.rounding.budget import recipes
from toolchain.compress.rounding.layers import Folds, LayerFact, learn_layer
from toolchain.compress.rounding.learned import Change, RoundedWeight, rounded_weights, with_changes
from toolchain.compress.rounding.reconstruction import Recipe, reconstruct
from toolchain.compress.rounding.segments import Segment, block_segments, layer_segments
from toolchain.compress.rounding.streams import BUDGET_BYTES, Streams, quantized_constants
from toolchain.engine.threads import one_thread
from toolchain.graph import WEIGHTED, Node, Structure
from toolchain.progress import SILENT, Progress
from toolchain.quantization import QuantizedGraph

Batches: TypeAlias = Callable[[], Iterable[Sequence[np.ndarray]]]

SECONDS = 300.0
"""What gradient descent takes where nothing is said."""


class RoundingMethod(StrEnum):
    """How the integers of weights are learned, cheapest first."""

    SECOND_ORDER = "second_order"
    ADAROUND = "adaround"
    BLOCK = "block"


@dataclass(frozen=True)
class SegmentFact:
    """Error of a segment's results on samples kept apart, as SQNR in dB, before and after gradient descent."""

    layers: tuple[str, ...]
    steps: int
    sqnr_before_db: float
    sqnr_after_db: float


@dataclass(frozen=True)
class RoundingFacts:
    """What learning did: one fact a weight, and one a segment where gradient descent followed."""

    method: RoundingMethod
    samples: int
    layers: tuple[LayerFact, ...]
    segments: tuple[SegmentFact, ...] = ()


def learn_rounding(
    model: QuantizedGraph,
    batches: Batches,
    *,
    method: RoundingMethod = RoundingMethod.SECOND_ORDER,
    structure: Structure | None = None,
    choose_scales: bool = False,
    seconds: float | None = None,
    seed: int = 0,
    budget_bytes: int = BUDGET_BYTES,
    progress: Progress = SILENT,
) -> tuple[QuantizedGraph, RoundingFacts]:
    """`model` with learned integers, kept as corrections of its weights, and new corrections of its biases.

    `batches()` starts the samples anew. Masked weights stay zero, those with a codebook as they are. `choose_scales`
    lets weights clip: their scales, and those of their biases, may change. `seconds` is for gradient descent.
    `budget_bytes` bounds what is held of activations: of more samples than fit, the first are taken. Deterministic for
    a seed. Raises SampleError where there is no sample.
    """
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        walk = _Walk(model, Streams(model, batches(), budget_bytes), structure or Structure(), choose_scales, seed)
        walk.learn_shared()
        if method is RoundingMethod.SECOND_ORDER:
            walk.learn_layers(progress.track(model.graph.nodes, description="rounding", total=len(model.graph.nodes)))
        else:
            find = layer_segments if method is RoundingMethod.ADAROUND else block_segments
            segments = find(model.graph)
            plan = recipes(model.graph, segments, SECONDS if seconds is None else seconds)
            pairs = list(zip(segments, plan, strict=True))
            walk.learn_segments(progress.track(pairs, description="rounding", total=len(pairs)))
    return walk.model, RoundingFacts(method, walk.streams.units, tuple(walk.layers), tuple(walk.segments))


@dataclass
class _Walk:
    """The model so far, and the two streams at the place that is learned next."""

    model: QuantizedGraph
    streams: Streams
    structure: Structure
    choose_scales: bool
    seed: int
    layers: list[LayerFact] = field(default_factory=list)
    segments: list[SegmentFact] = field(default_factory=list)
    weights: dict[str, RoundedWeight] = field(init=False)

    def __post_init__(self) -> None:
        self.weights = rounded_weights(self.model, self.structure)

    def learn_shared(self) -> None:
        """Weights that several nodes read, all from one pass in which they are rounded as they are now."""
        shared = {name: w for name, w in self.weights.items() if w.is_shared}
        if not shared:
            return
        graph = self.model.graph
        folds = {name: Folds.empty(graph, w) for name, w in shared.items()}
        ahead = self.streams.fork()
        with torch.no_grad():
            for node in graph.nodes:
                if node.op in WEIGHTED and node.inputs[1] in shared:
                    folds[node.inputs[1]].collect(ahead, shared[node.inputs[1]], (node,), self.seed)
                ahead.advance((node,))
            for name, weight in shared.items():
                self._learn(weight, folds[name], self.streams)

    def learn_layers(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self._learn_reader(node, self.streams)
            self.streams.advance((node,))

    def learn_segments(self, plan: Iterable[tuple[Segment, Recipe | None]]) -> None:
        """Every segment by second order first, then together; the streams stay in front until it is done."""
        for number, (segment, recipe) in enumerate(plan):
            outputs = frozenset((*segment.inputs, *segment.outputs))
            ahead = self.streams.fork()
            for node in segment.nodes:
                self._learn_reader(node, ahead)
                ahead.advance((node,), keep=outputs)
            self.streams.constants.update(ahead.constants)
            inside = {
                node.inputs[1]: self.weights[node.inputs[1]]
                for node in segment.weighted
                if node.inputs[1] in self.weights and not self.weights[node.inputs[1]].is_shared
            }
            if recipe is not None and inside:
                self._reconstruct(segment, ahead, inside, recipe, self.seed + number)
            self.streams.advance(segment.nodes)

    def _reconstruct(
        self, segment: Segment, ahead: Streams, weights: Mapping[str, RoundedWeight], recipe: Recipe, seed: int
    ) -> None:
        found = reconstruct(self.streams, ahead, self.model, segment, weights, recipe, seed)
        self._take(found.changes, self.streams)
        before, after = (float(-10 * np.log10(max(error, 1e-30))) for error in (found.before, found.after))
        names = tuple(node.name for node in segment.weighted)
        self.segments.append(SegmentFact(names, recipe.steps, before, after))

    def _learn_reader(self, node: Node, streams: Streams) -> None:
        """The weight of a node that alone reads it."""
        weight = self.weights.get(node.inputs[1]) if node.op in WEIGHTED else None
        if weight is None or weight.is_shared:
            return
        folds = Folds.empty(self.model.graph, weight)
        with torch.no_grad():
            folds.collect(streams, weight, weight.readers, self.seed)
            self._learn(weight, folds, streams)

    def _learn(self, weight: RoundedWeight, folds: Folds, streams: Streams) -> None:
        change, fact = learn_layer(self.model, weight, folds, choose_scales=self.choose_scales)
        self.layers.append(fact)
        self._take({weight.name: change}, streams)

    def _take(self, changes: Mapping[str, Change], streams: Streams) -> None:
        self.model = with_changes(self.model, changes)
        touched = {name for change in changes.values() for name in (change.weight, *change.biases)}
        streams.constants.update(quantized_constants(self.model, touched))
