"""How a network is to be rounded, as a value: what the rungs of the ladder change, and the quantized graph it makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from toolchain.graph import DType, Graph, Structure
from toolchain.quantization import NumberFormat, QuantizedGraph, Scheme, TensorStatistics, assign_params
from toolchain.quantization.correct import correct_biases
from toolchain.quantization.range_methods import PERCENT
from toolchain.quantization.ranges import Ranges


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A folded float graph, the statistics of its activations, and every choice that rounding it leaves open: ranges of
    activations, ends of the weights' grids, number formats of single nodes, and whether biases are corrected.
    `has_measured_ranges` tells that the ranges were chosen by measuring, `percentile` what share of values (in percent)
    the percentile method keeps where it is among those measured."""

    graph: Graph
    structure: Structure
    statistics: Mapping[str, TensorStatistics]
    scheme: Scheme
    ranges: Ranges
    weight_bounds: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[str, NumberFormat] = field(default_factory=dict)
    correct_bias: bool = False
    has_measured_ranges: bool = False
    percentile: float = PERCENT

    def quantized(self) -> QuantizedGraph:
        """The quantized graph, weights rounded to nearest. Raises UnsupportedError as `assign_params`."""
        made = assign_params(
            self.graph,
            self.ranges,
            self.scheme,
            self.structure,
            numbers=self.numbers,
            weight_bounds=self.weight_bounds,
        )
        if not self.correct_bias:
            return made
        return correct_biases(made, {n: s.means for n, s in self.statistics.items() if s.means is not None})


def with_learned(model: QuantizedGraph, learned: QuantizedGraph) -> QuantizedGraph:
    """`model` with the corrections of `learned` for constants that both round alike: to the same grid, from the same
    values, behind the same inputs."""
    kept = {
        name: correction
        for name, correction in learned.corrections.items()
        if name in model.params
        and model.params[name] == learned.params.get(name)
        and np.array_equal(model.graph.constants[name], learned.graph.constants[name])
    }
    return replace(model, corrections={**model.corrections, **kept})


def with_measured_ranges(
    settings: Settings, batches: Iterable[Sequence[np.ndarray]]
) -> tuple[Settings, dict[str, int]]:
    """`settings` with the range of every activation that costs its readers least, and how often each method won."""
    from toolchain.engine.range_choice import choose_measured

    chosen = choose_measured(
        settings.graph,
        settings.statistics,
        batches,
        dtype=settings.scheme.activation_dtype or DType.INT8,
        symmetric=settings.scheme.activation_symmetric,
        percentile=settings.percentile,
    )
    ranges = {name: extent for name, (_, extent) in chosen.items()}
    counts = Counter(str(method) for method, _ in chosen.values())
    return replace(settings, ranges=ranges, has_measured_ranges=True), dict(sorted(counts.items()))
