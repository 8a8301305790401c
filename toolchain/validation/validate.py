"""Judges exported files on samples kept apart from calibration: each in its runtimes, against the float reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeAlias

import numpy as np

from toolchain.engine.run import predict
from toolchain.errors import DisagreementError, OptionError, UnsupportedError
from toolchain.formats.artifact import Runner
from toolchain.formats.onnx import OnnxRunner, read_onnx
from toolchain.formats.tflite import TfliteRunner, read_tflite
from toolchain.graph import DType, Graph
from toolchain.progress import SILENT, Progress
from toolchain.quantization import QuantizedGraph, dequantize
from toolchain.samples import Batch, SampleSet
from toolchain.stages.inputs import input_types
from toolchain.stages.states import ExportedModel
from toolchain.targets import Gates
from toolchain.validation.gates import judge as judge_gates
from toolchain.validation.latency import median_latency_ms
from toolchain.validation.metrics import Comparison, accuracy, is_classes
from toolchain.validation.results import Agreement, RuntimeResult, TensorResult, Validation
from toolchain.validation.tensors import compare_tensors, quantize_inputs

Metric: TypeAlias = Callable[[Sequence[np.ndarray], np.ndarray | None], float]
"""A user's judgement: (float outputs over all samples, labels or None) -> a score, higher is better."""

REFERENCE_SAMPLES = 8
"""Reference kernels are slow and only have to show the same integers: so many samples are enough."""

TENSOR_SAMPLES = 2


@dataclass
class _Track:
    """One file in one runtime while samples stream by."""

    file: str
    runner: Runner
    model: Graph | QuantizedGraph
    takes_integers: bool
    most_samples: int | None
    comparison: Comparison
    outputs: list[list[np.ndarray]] = field(default_factory=list)
    latency_ms: float = 0.0

    @property
    def wants_more(self) -> bool:
        return self.most_samples is None or self.comparison.samples < self.most_samples


def validate(
    model: ExportedModel,
    samples: SampleSet,
    gates: Gates,
    *,
    metric: Metric | None = None,
    progress: Progress = SILENT,
) -> Validation:
    """Run every file of `model` on the judging samples. Missed gates are listed, not raised (see `raise_missed`).

    Raises UnsupportedError where a runtime refuses a file, SampleError where a sample does not fit.
    """
    notes: list[str] = []
    tracks = list(_tracks(model, notes))
    labels: list[np.ndarray | None] = []
    references: list[list[np.ndarray]] = []
    checked = samples.checked(input_types(model.graph))
    total = -(-samples.judging_count // samples.batch_size)
    for batch in progress.track(checked.judging(), description="check", total=total):
        targets = predict(model.reference, [batch.inputs])
        references.append(targets)
        labels.append(batch.labels)
        for track in tracks:
            _judge(track, batch, targets)
    judge = _Judge(metric, references, labels)
    quantized = model.quantized
    few = list(islice(_singles(checked), TENSOR_SAMPLES))
    deployed = [track for track in tracks if isinstance(track.model, QuantizedGraph)]
    found = Validation(
        samples=sum(len(r[0]) for r in references),
        score_name=judge.name,
        reference_score=judge.score(references),
        runtimes=tuple(_runtime_result(track, judge) for track in tracks),
        agreements=_agreements(quantized, tracks, gates.output_steps),
        tensors=_tensors(quantized, deployed, few),
        notes=tuple(notes),
    )
    return judge_gates(found, gates)


def raise_missed(validation: Validation) -> None:
    """Raises DisagreementError that lists the missed gates and names the first diverging tensor."""
    if validation.missed:
        lines = [f"{len(validation.missed)} gate(s) missed:", *(f"  - {line}" for line in validation.missed)]
        hint = "report.html shows where the error arises; nothing was deployed"
        raise DisagreementError("\n".join(lines), hint=hint)


def _tracks(model: ExportedModel, notes: list[str]) -> Iterator[_Track]:
    """One track for each file and runtime; what only checks is left out with a note where the runtime cannot run it."""
    for file, content in model.files.items():
        is_float = not model.params or ".float." in file
        graph = model.graph if is_float else model.quantized
        steps = None if is_float else [_step(model.quantized, name) for name in model.graph.outputs]
        integers = takes_integers(file, content)
        for make, most in _runners(file, content, graph):
            try:
                yield _Track(file, make(), graph, integers, most, Comparison(steps))
            except UnsupportedError as error:
                if most is None:
                    raise
                notes.append(f"{file}: not checked with reference kernels: {error.what}")


def takes_integers(file: str, content: bytes) -> bool:
    """Whether a file's inputs are quantized integers."""
    facts = read_onnx(content) if file.endswith(".onnx") else read_tflite(content)
    return any(facts.tensors[name].dtype in (DType.INT8, DType.UINT8, DType.INT16) for name in facts.inputs)


def _step(model: QuantizedGraph, name: str) -> float:
    return model.params[name].step if name in model.params else 1.0


def _runners(
    file: str, content: bytes, model: Graph | QuantizedGraph
) -> Iterator[tuple[Callable[[], Runner], int | None]]:
    """What loads the file in each runtime, and how many samples it is to run (None: all)."""
    if file.endswith(".onnx"):
        yield partial(OnnxRunner, content, model), None
    elif file.endswith(".tflite"):
        yield partial(TfliteRunner, content, kernels="xnnpack"), None
        if isinstance(model, QuantizedGraph):
            yield partial(TfliteRunner, content, kernels="reference"), REFERENCE_SAMPLES
    else:
        raise OptionError(f"{file} is neither .onnx nor .tflite")


def _singles(samples: SampleSet) -> Iterator[tuple[np.ndarray, ...]]:
    for batch in samples.judging():
        yield from _rows(batch)


def _rows(batch: Batch) -> Iterator[tuple[np.ndarray, ...]]:
    for index in range(len(batch)):
        yield tuple(array[index : index + 1] for array in batch.inputs)


def _judge(track: _Track, batch: Batch, targets: Sequence[np.ndarray]) -> None:
    for index, inputs in enumerate(_rows(batch)):
        if not track.wants_more:
            return
        if not track.outputs:
            track.latency_ms = median_latency_ms(track.runner, _given(track, inputs))
        outputs = track.runner.run(_given(track, inputs))
        track.outputs.append(outputs)
        track.comparison.add(_real(track, outputs), [target[index : index + 1] for target in targets])


def _given(track: _Track, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    if isinstance(track.model, QuantizedGraph) and track.takes_integers:
        return quantize_inputs(track.model, inputs)
    return inputs


def _real(track: _Track, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    if not isinstance(track.model, QuantizedGraph):
        return list(outputs)
    params = [track.model.params.get(name) for name in track.model.graph.outputs]
    pairs = zip(outputs, params, strict=True)
    return [o if p is None or o.dtype.kind == "f" else dequantize(o, p) for o, p in pairs]


@dataclass
class _Judge:
    """Scores outputs: the user's metric, else top-1 where there are labels and classes, else nothing."""

    metric: Metric | None
    references: list[list[np.ndarray]]
    labels: list[np.ndarray | None]

    @property
    def name(self) -> str | None:
        if self.metric is not None:
            return getattr(self.metric, "__name__", "metric")
        return "top-1" if self._all_labels() is not None and is_classes(self.references[0][0]) else None

    def score(self, outputs: Sequence[Sequence[np.ndarray]]) -> float | None:
        if self.name is None:
            return None
        columns = [np.concatenate(column) for column in zip(*outputs, strict=True)]
        labels = self._all_labels()
        if self.metric is None:
            return accuracy(columns[0], labels[: len(columns[0])])  # type: ignore[index]
        return float(self.metric(columns, None if labels is None else labels[: len(columns[0])]))

    def _all_labels(self) -> np.ndarray | None:
        known = [labels for labels in self.labels if labels is not None]
        return np.concatenate(known) if known and len(known) == len(self.labels) else None


def _runtime_result(track: _Track, judge: _Judge) -> RuntimeResult:
    found = track.comparison
    return RuntimeResult(
        file=track.file,
        runtime=track.runner.name,
        samples=found.samples,
        sqnr_db=found.sqnr_db,
        cosine=found.cosine,
        max_error_steps=None if found.steps is None else found.max_error_steps,
        relative_error=found.relative_error,
        same_class=found.same_class,
        score=judge.score([_real(track, outputs) for outputs in track.outputs]),
        latency_ms=track.latency_ms,
    )


def _tensors(
    model: QuantizedGraph, tracks: Sequence[_Track], samples: Sequence[Sequence[np.ndarray]]
) -> tuple[TensorResult, ...]:
    if not tracks:
        return ()
    runners = [track.runner for track in tracks]
    return compare_tensors(model, runners, samples, takes_integers=tracks[0].takes_integers)


def _agreements(model: QuantizedGraph, tracks: Sequence[_Track], within: int) -> tuple[Agreement, ...]:
    judged = [track for track in tracks if isinstance(track.model, QuantizedGraph)]
    return tuple(_agreement(model, judged[0], other, within) for other in judged[1:])


def _agreement(model: QuantizedGraph, first: _Track, second: _Track, within: int) -> Agreement:
    worst, close, values, same = 0, 0, 0, 0
    pairs = list(zip(first.outputs, second.outputs, strict=False))
    classes = all(is_classes(output[0]) for output, _ in pairs)
    steps = [_step(model, name) for name in model.graph.outputs]
    for ours, theirs in pairs:
        for a, b, step in zip(ours, theirs, steps, strict=True):
            unit = step if a.dtype.kind == "f" else 1.0
            difference = np.abs(a.astype(np.float64) - b.astype(np.float64)) / unit
            worst = max(worst, round(float(difference.max(initial=0))))
            close += int((difference <= within + 1e-3).sum())
            values += difference.size
        same += int(classes and ours[0].argmax() == theirs[0].argmax())
    share = close / max(values, 1)
    return Agreement(
        f"{first.file} {first.runner.name}",
        f"{second.file} {second.runner.name}",
        len(pairs),
        worst,
        share,
        same / len(pairs) if classes and pairs else None,
        gated=second.most_samples is None,
    )
