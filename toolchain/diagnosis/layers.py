"""Where a quantized graph loses accuracy: for every layer the error it inherits, the error it adds, its share of the
error of the outputs, and the cause.

* SQNR in and out: of what the layer reads and of its result, in the quantized run against the float run;
* added: the layer quantized, on float inputs; inherited: the layer in float, on the inputs of the quantized run;
* share: its sensitivity (see `sensitivity`) over the sum of all, a first-order measure: `explained` says how much of
  the error of the outputs that sum comes to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from toolchain.diagnosis.causes import Cause, Measures, advise, name_causes
from toolchain.diagnosis.histogram import Histogram, result_histogram, weight_histogram
from toolchain.diagnosis.isolation import FloatGraph, QuantizedNodes
from toolchain.diagnosis.meter import LayerMeter, spread
from toolchain.diagnosis.sensitivity import (
    Sensitivity,
    SensitivityMeter,
    energy,
    error_energy,
    ratio_db,
    sample_chunks,
)
from toolchain.engine.threads import one_thread
from toolchain.graph import WEIGHTED, Node, Op, Source
from toolchain.graph.cost import node_costs
from toolchain.quantization import AffineParams, QuantizedGraph, TensorStatistics, dequantize
from toolchain.quantization.groups import shared_groups
from toolchain.quantization.ranges import range_of

SAMPLES = 8
WORST = 5
"""How many layers are worth a picture."""

KEPT_PERCENT = 99.9
_RUNS, _MACS, _FEWEST = 100_000, 5e10, 2
"""Runs of single nodes, and multiply-adds: a few seconds each. One sample alone shows no shift of means."""


@dataclass(frozen=True)
class LayerDiagnosis:
    """One layer, or an input of the graph (`op` is then `input`). `tensor` is its result.

    SQNRs are in dB, at most 300; `sqnr_in_db` and `inherited_db` are None for inputs. `cause` is None where no error
    is added; `also` is what else holds. `histogram` only the worst layers have.
    """

    name: str
    tensor: str
    op: str
    source: Source
    sqnr_in_db: float | None
    sqnr_out_db: float
    added_db: float
    inherited_db: float | None
    sensitivity: Sensitivity
    share: float
    measures: Measures
    cause: Cause | None
    also: tuple[Cause, ...]
    advice: tuple[str, ...]
    histogram: Histogram | None = None


@dataclass(frozen=True)
class Diagnosis:
    """`layers` in evaluation order, those that quantization changes; `output_error` is the energy of the outputs' error
    relative to the signal's, summed over `outputs` outputs, all layers quantized."""

    layers: tuple[LayerDiagnosis, ...]
    samples: int
    outputs: int
    output_error: float

    @property
    def sqnr_db(self) -> float:
        """Of the outputs."""
        return ratio_db(self.outputs, self.output_error)

    @property
    def explained(self) -> float | None:
        """Sum of the layers' sensitivities over the error of the outputs; 1 where errors add up."""
        total = sum(layer.sensitivity.error for layer in self.layers)
        return total / self.output_error if self.output_error else None

    def worst(self, count: int = WORST) -> tuple[LayerDiagnosis, ...]:
        """The layers with the largest shares, the largest first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.share)[:count])


def diagnose_graph(
    model: QuantizedGraph,
    batches: Iterable[Sequence[np.ndarray]],
    *,
    statistics: Mapping[str, TensorStatistics] | None = None,
    samples: int = SAMPLES,
) -> Diagnosis:
    """Measure `model` against its own graph in float, on the first `samples` of `batches`, float inputs `(N, ...)`.

    `statistics` of the calibration say what range each tensor has of its own; without them the samples do. Raises
    UnsupportedError where a layer becomes NaN or infinite.
    """
    nodes = QuantizedNodes(model)
    pass_ = _Pass(model, nodes, SensitivityMeter(model.graph, {"": nodes}), statistics)
    with torch.inference_mode(), one_thread():
        for inputs in sample_chunks(model.graph, batches, samples, runs=2):
            pass_.add(inputs)
    layers = pass_.layers()
    worst = {layer.tensor for layer in sorted(layers, key=lambda layer: -layer.share)[:WORST]}
    return Diagnosis(
        tuple(pass_.pictured(layer) if layer.tensor in worst else layer for layer in layers),
        pass_.samples,
        len(model.graph.outputs),
        pass_.output_error(),
    )


def affordable_samples(model: QuantizedGraph) -> int:
    """How many samples, at most `SAMPLES`, a diagnosis may take that has to cost little beside everything else; 0 where
    even one costs too much."""
    graph, nodes, floats = model.graph, QuantizedNodes(model), FloatGraph(model.graph)
    layers = [name for name in graph.activations if nodes.is_quantized(name)]
    runs = sum(floats.work_behind(name) for name in layers)
    macs = sum(cost.macs for cost in node_costs(graph)) * runs / max(len(graph.nodes), 1)
    return 0 if not layers or runs > _RUNS else max(_FEWEST, min(SAMPLES, int(_MACS / max(macs, 1.0))))


class _Pass:
    """The samples seen so far."""

    def __init__(
        self,
        model: QuantizedGraph,
        nodes: QuantizedNodes,
        sensitivities: SensitivityMeter,
        statistics: Mapping[str, TensorStatistics] | None,
    ) -> None:
        self.samples = 0
        self._model, self._nodes, self._sensitivities = model, nodes, sensitivities
        graph = model.graph
        self._meters = {name: LayerMeter(graph, name) for name in graph.activations if nodes.is_quantized(name)}
        self._noise, self._signal = np.zeros(len(graph.outputs)), np.zeros(len(graph.outputs))
        self._statistics = {n: s for n, s in (statistics or {}).items() if n in graph.types and s.elements}
        self._ranges = {name: found.minmax() for name, found in self._statistics.items()}

    def add(self, inputs: Sequence[np.ndarray]) -> None:
        floats, graph = self._sensitivities.floats, self._model.graph
        values, quantized = floats.values(inputs), self._nodes.values(inputs)
        self.samples += len(inputs[0])
        made = [(index, name) for index, name in enumerate(graph.outputs) if name in values]
        for index, name in made:
            self._signal[index] += energy(values[name])
            self._noise[index] += error_energy(quantized[name], values[name])
        for name, value in values.items():
            if value.is_floating_point() and name not in self._statistics:
                low, high = self._ranges.get(name, (0.0, 0.0))
                least, most = (float(bound) for bound in torch.aminmax(value))
                self._ranges[name] = (min(low, least), max(high, most))
        self._sensitivities.add_signal(values)
        for name, meter in self._meters.items():
            alone = meter.add(floats, self._nodes, values, quantized)
            self._sensitivities.add_alone("", name, alone, values)

    def output_error(self) -> float:
        """Relative energies of the outputs' errors, summed."""
        return float((self._noise / np.maximum(self._signal, 1e-300)).sum())

    def layers(self) -> list[LayerDiagnosis]:
        found = self._sensitivities.result()[""]
        total = sum(sensitivity.error for sensitivity in found.values())
        shared = _shared_ratios(self._model, self._ranges)
        return [
            self._layer(meter, shared.get(name), found[name], found[name].error / total if total else 0.0)
            for name, meter in self._meters.items()
        ]

    def pictured(self, layer: LayerDiagnosis) -> LayerDiagnosis:
        """With the histogram of what is rounded to the greater harm: the weights, or the result."""
        node = self._model.graph.producers.get(layer.tensor)
        if layer.measures.weights_dominate and node is not None and node.op in WEIGHTED:
            return replace(layer, histogram=weight_histogram(self._model, node.inputs[1]))
        params = self._nodes.rounded.get(layer.tensor)
        if params is None:
            return layer
        return replace(layer, histogram=result_histogram(self._meters[layer.tensor].statistics, params))

    def _layer(self, meter: LayerMeter, shared: float | None, sensitivity: Sensitivity, share: float) -> LayerDiagnosis:
        sums, node = meter.energies, self._model.graph.producers.get(meter.name)
        measures = replace(
            _measures(self._model, meter, node), input_spread=self._input_spread(node), shared_ratio=shared
        )
        # what an exact zero absorbs, as the scores behind a mask, has no cause worth naming
        found = name_causes(measures) if sensitivity.error else ()
        cause, *also = found or (None,)
        biases = node.inputs[2:] if node is not None and node.op in WEIGHTED else ()
        corrected = any(name in self._model.corrections for name in biases)
        return LayerDiagnosis(
            name=meter.name if node is None else node.name,
            tensor=meter.name,
            op="input" if node is None else node.op.value,
            source=Source(meter.name) if node is None else node.source,
            sqnr_in_db=ratio_db(sums.given, sums.noise_in) if sums.given else None,
            sqnr_out_db=ratio_db(sums.own, sums.noise_out),
            added_db=ratio_db(sums.own, sums.added),
            inherited_db=None if node is None else ratio_db(sums.own, sums.inherited),
            sensitivity=sensitivity,
            share=share,
            measures=measures,
            cause=cause,
            also=tuple(other for other in also if other is not None),
            advice=() if cause is None else advise(cause, measures, has_bias=bool(biases), is_corrected=corrected),
        )

    def _input_spread(self, node: Node | None) -> float | None:
        """Of the ranges of a weight's input channels, each weighed with the error that comes in through it."""
        if node is None or node.op not in WEIGHTED or node.inputs[1] not in self._model.params:
            return None
        name, source = node.inputs[1], node.inputs[0]
        while source not in self._meters and (maker := self._model.graph.producers.get(source)) is not None:
            if maker.op is not Op.RESHAPE:  # a flatten
                return None
            source = maker.inputs[0]
        meter = self._meters.get(source)
        weight = self._model.graph.constants[name]
        energies = np.atleast_1d(meter.channel_energies if meter is not None else 0.0)
        if weight.shape[1] < 2 or len(energies) != weight.shape[1]:
            return None
        rounded = dequantize(self._model.integers[name], self._model.params[name])
        others = tuple(axis for axis in range(weight.ndim) if axis != 1)
        errors = np.square(rounded.astype(np.float64) - weight).sum(others) * energies
        return spread(np.abs(weight).max(others), errors) if errors.any() else None


def _measures(model: QuantizedGraph, meter: LayerMeter, node: Node | None) -> Measures:
    sums, own = meter.energies, max(meter.energies.own, 1e-300)
    weight = node.inputs[1] if node is not None and node.op in WEIGHTED and node.inputs[1] in model.params else None
    params = model.params.get(meter.name)
    return Measures(
        weight_error=sums.weights / own,
        result_error=sums.result / own,
        saturation_error=sums.saturation / own,
        clipped=meter.clipped / max(meter.elements, 1),
        bias_share=meter.bias_share(),
        weight_spread=None if weight is None else _weight_spread(model, weight),
        result_spread=spread(np.sqrt(np.atleast_1d(meter.channel_energies))),
        weight_levels=None if weight is None else _weight_levels(model, weight),
        result_levels=None if params is None else _levels(meter.statistics, params),
    )


def _weight_spread(model: QuantizedGraph, name: str) -> float | None:
    """Of the ranges of output channels that share a scale."""
    if model.params[name].axis is not None:
        return None
    weight = model.graph.constants[name]
    return spread(np.abs(weight.reshape(len(weight), -1)).max(axis=1))


def _weight_levels(model: QuantizedGraph, name: str) -> float:
    """Share of the grid that 99.9 % of a weight's integers lie within."""
    sizes = np.abs(model.integers[name].astype(np.float64))
    return float(np.percentile(sizes, KEPT_PERCENT, method="lower") / model.params[name].q_max)


def _levels(statistics: TensorStatistics, params: AffineParams) -> float:
    """Share of the grid that zero and 99.9 % of the values lie within."""
    low, high = statistics.percentile(KEPT_PERCENT)
    lowest, highest = params.bounds
    return min((max(high, 0.0) - min(low, 0.0)) / (highest - lowest), 1.0)


def _shared_ratios(model: QuantizedGraph, ranges: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Activation -> the widest range of a tensor with the same parameters over its own.

    What the grid does not reach (the minus infinity of a mask) does not count.
    """
    graph = model.graph
    widths: dict[str, dict[str, float]] = {}
    for name, group in shared_groups(graph, model.float_nodes).items():
        if name in model.params and (name in ranges or graph.is_constant(name)):
            low, high = range_of(graph, ranges, name)
            (lowest, highest), width = model.params[name].bounds, max(high, 0.0) - min(low, 0.0)
            widths.setdefault(group, {})[name] = min(width, highest - lowest)
    return {
        name: max(members.values()) / width
        for members in widths.values()
        for name, width in members.items()
        if width > 0 and len(members) > 1
    }
