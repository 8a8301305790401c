"""Judges quantized graphs on the samples a stage has, as the files that would be deployed and in simulation.

The figure that counts is that of the files in their runtimes: the worst of them. The simulation runs on a few samples
and is only there to show that it says the same; nothing learns from these samples, since what is learned fits the
very roundings of the simulation, and a file with other roundings of half a step loses that. What a score falls by has
the standard error of the jackknife,

    e^2 = (g - 1) / g  sum_i (f_i - mean f)^2        f_i: the fall on all samples but those of part i of g

Of a network that hands its state to the caller, whole streams are judged, each file's own state fed back to it: an
error that one step does not show may add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from math import isfinite, sqrt
from typing import Any

import numpy as np

from toolchain.diagnosis.isolation import QuantizedNodes
from toolchain.engine.run import predict, runnable_batches
from toolchain.engine.threads import one_thread
from toolchain.errors import OptionError, UnsupportedError
from toolchain.fidelity import Comparison, Metric
from toolchain.formats.artifact import Format, Runner
from toolchain.formats.onnx import OnnxRunner, write_onnx
from toolchain.formats.tflite import TfliteRunner, write_tflite
from toolchain.graph import Graph
from toolchain.imports import call_user_function
from toolchain.ladder.goal import Fidelity, Goal
from toolchain.quantization import QuantizedGraph, dequantize_outputs, quantize_inputs
from toolchain.samples import Network, SampleSet, followed

MOST_SAMPLES, MOST_STEPS, SIMULATED_SAMPLES = 256, 1024, 64
JACKKNIFE_PARTS = 8


@dataclass(frozen=True)
class Judgement:
    """What was measured of one quantized graph: each file on all samples and on those that nothing is learned from,
    and simulation and file on the same few samples. There is no simulation where runtimes round float activations as
    they come, each in its own way."""

    files: dict[str, Fidelity]
    kept_apart: dict[str, Fidelity]
    simulated_db: float | None
    same_samples_db: dict[str, float]

    def worst(self, goal: Goal, *, kept_apart: bool = False) -> Fidelity:
        """The file that is furthest from the goal, or from the reference."""
        judged = self.kept_apart if kept_apart else self.files
        return max(judged.values(), key=lambda found: (goal.shortfall(found), -found.worse_db))

    def to_plain(self) -> dict[str, Any]:
        return {
            "files": {name: found.to_plain() for name, found in self.files.items()},
            "kept_apart": {name: found.to_plain() for name, found in self.kept_apart.items()},
            "simulated_db": self.simulated_db,
            "same_samples_db": self.same_samples_db,
        }


@dataclass
class Judge:
    """Holds what the reference gives for at most `MOST_SAMPLES` calibration samples of `samples`, or whole streams of
    at most `MOST_STEPS`."""

    reference: Graph
    samples: SampleSet
    formats: tuple[Format, ...]
    metric: Metric | None = None
    _targets: list[list[np.ndarray]] = field(default_factory=list)
    _labels: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        for batch in self._batches():
            self._targets.append(predict(self.reference, [batch.inputs]))
            if batch.labels is not None:
                self._labels.append(batch.labels)

    @property
    def learning_batches(self) -> int:
        """How many batches may be learned from: the first three quarters of the samples, in whole batches. The others
        are kept apart; of a single batch, nothing may be learned from."""
        if (streams := self.samples.streams) is not None:
            return streams.learning * streams.steps // self.samples.batch_size
        sizes = [len(np.atleast_1d(targets[0])) for targets in self._targets]
        # the last batch may be short: what is kept apart is counted in samples
        learned = np.cumsum(sizes) <= sum(sizes) * 3 / 4
        return max(int(learned.sum()), min(len(sizes) - 1, 1))

    @property
    def _learned(self) -> int:
        """How many of what `_batches` yields may have been learned from."""
        if (streams := self.samples.streams) is None:
            return self.learning_batches
        return sum(number < streams.learning for number in self._streams)

    def measure(self, model: QuantizedGraph) -> Judgement:
        """Judge `model` by its files and in simulation. Raises UnsupportedError where a runtime refuses a file."""
        runners = {kind.value: _runner(kind, model) for kind in self.formats}
        outputs = {name: self._run(model, runner) for name, runner in runners.items()}
        apart = slice(self._learned, None)
        return Judgement(
            {name: self._fidelity(found, slice(None)) for name, found in outputs.items()},
            {name: self._fidelity(found, apart) for name, found in outputs.items()},
            self._few_db(partial(_simulate, QuantizedNodes(model))) if model.has_integer_activations else None,
            {name: self._few_db(partial(_run_singles, model, runner)) for name, runner in runners.items()},
        )

    def _run(self, model: QuantizedGraph, runner: Runner) -> list[list[np.ndarray]]:
        columns: list[list[np.ndarray]] = []
        for batch in self._batches():
            rows = self._along(lambda single: _outputs(model, runner, single), batch.inputs, model.graph)
            columns.append(_columns(list(rows)))
        return columns

    def _few_db(self, run: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]) -> float:
        """SQNR of what `run` gives, (N, ...) for (N, ...), for a few samples that nothing learns from; those of a
        stream are met in the reference's states, since errors that grow apart say nothing of what is alike."""
        compared, seen = Comparison(), 0
        apart = islice(self._batches(), self._learned, None)
        for batch, targets in zip(apart, self._targets[self._learned :], strict=True):
            if (taken := min(SIMULATED_SAMPLES - seen, len(batch))) <= 0:
                break
            outputs = run([array[:taken] for array in batch.inputs])
            compared.add(outputs, [target[:taken] for target in targets])
            seen += taken
        return compared.sqnr_db

    def _along(self, run: Network, inputs: Sequence[np.ndarray], graph: Graph) -> Iterator[list[np.ndarray]]:
        """What `run` gives for one sample after the other; along a stream its state goes back to it."""
        if self.samples.streams is None:
            return (list(run(single)) for single in _singles(inputs, graph))
        return (outputs for _, outputs in followed(run, _singles(inputs, graph), self.samples.fed_back))

    def _fidelity(self, outputs: Sequence[Sequence[np.ndarray]], part: slice) -> Fidelity:
        compared = Comparison()
        outputs, targets = outputs[part], self._targets[part]
        for given, wanted in zip(outputs, targets, strict=True):
            compared.add(given, wanted)
        found = Fidelity(compared.sqnr_db, compared.balanced_db, compared.same_class, samples=compared.samples)
        if (metric := self.metric) is None:
            return found
        labels = np.concatenate(self._labels[part]) if len(self._labels) == len(self._targets) else None
        fall = _Fall(metric, _columns(targets), _columns(outputs), labels, self.samples.streams is not None)
        points = fall.points(slice(None))
        return replace(found, score_drop=points, score_error=fall.error()) if isfinite(points) else found

    def _batches(self) -> Iterator[Any]:
        if self.samples.streams is not None:
            chosen = self._streams
            return (batch for number, batch in self.samples.whole_streams("calibration") if number in chosen)
        most = -(-MOST_SAMPLES // self.samples.batch_size)
        return islice(self.samples.calibration(), most)

    @cached_property
    def _streams(self) -> frozenset[int]:
        """Numbers of the streams that are judged, spread over all."""
        streams = self.samples.streams
        assert streams is not None
        count = self.samples.calibration_count // streams.steps
        places = np.linspace(0, count - 1, max(2, min(count, MOST_STEPS // streams.steps)))
        return frozenset(int(place) for place in places.round())


@dataclass(frozen=True)
class _Fall:
    """By how much a user's metric falls from the reference's outputs to others, (N, ...) each. Where samples follow
    one another, the parts of the jackknife are stretches of them: neighbours are no independent samples."""

    metric: Metric
    targets: list[np.ndarray]
    outputs: list[np.ndarray]
    labels: np.ndarray | None
    in_order: bool

    def points(self, kept: slice | np.ndarray) -> float:
        """On the samples that are kept."""
        labels = None if self.labels is None else self.labels[kept]
        spec = getattr(self.metric, "__name__", "metric")
        scores = (
            float(call_user_function(self.metric, [c[kept] for c in columns], labels, what="metric", spec=spec))
            for columns in (self.targets, self.outputs)
        )
        return 100 * (next(scores) - next(scores))

    def error(self) -> float:
        """Standard error; 0 where the metric says nothing of some samples alone."""
        count = len(self.targets[0])
        places = np.arange(count) * JACKKNIFE_PARTS // count if self.in_order else np.arange(count) % JACKKNIFE_PARTS
        parts = int(places.max()) + 1
        if parts < 2:
            return 0.0
        try:
            falls = np.array([self.points(places != part) for part in range(parts)])
        except OptionError:
            return 0.0
        error = sqrt((parts - 1) / parts * float(np.sum((falls - falls.mean()) ** 2)))
        return error if isfinite(error) else 0.0


def _simulate(nodes: QuantizedNodes, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    import torch

    graph, rows = nodes.model.graph, []
    with torch.inference_mode(), one_thread():
        for part in runnable_batches(graph, [inputs]):
            values = nodes.values(part)
            rows.append([values[name].numpy() for name in graph.outputs])
    return _columns(rows)


def _run_singles(model: QuantizedGraph, runner: Runner, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    return _columns([_outputs(model, runner, single) for single in _singles(inputs, model.graph)])


def _columns(rows: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def _runner(kind: Format, model: QuantizedGraph) -> Runner:
    if kind is Format.ONNX:
        return OnnxRunner(write_onnx(model), model)
    try:
        return TfliteRunner(write_tflite(model), kernels="xnnpack")
    except UnsupportedError:
        return TfliteRunner(write_tflite(model), kernels="builtin")


def _singles(inputs: Sequence[np.ndarray], graph: Graph) -> Iterator[list[np.ndarray]]:
    """As many rows at a time as the files take."""
    rows = [value.type.shape[0] for value in graph.inputs]
    for part in range(len(inputs[0]) // rows[0]):
        yield [array[part * n : (part + 1) * n] for array, n in zip(inputs, rows, strict=True)]


def _outputs(model: QuantizedGraph, runner: Runner, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    outputs = runner.run(quantize_inputs(model, inputs))
    return [np.atleast_1d(output) for output in dequantize_outputs(model, outputs)]
