"""Judges exported files on samples kept apart from calibration: each in its runtimes, against the float reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from toolchain.engine.run import predict
from toolchain.errors import DisagreementError, OptionError
from toolchain.fidelity import Metric, accuracy, is_class_numbers, is_classes, is_real
from toolchain.imports import call_user_function
from toolchain.progress import SILENT, Progress
from toolchain.quantization import QuantizedGraph
from toolchain.samples import SampleSet, followed
from toolchain.stages.inputs import input_types
from toolchain.stages.states import ExportedModel
from toolchain.targets import Gates
from toolchain.validation.agreement import compare_runtimes
from toolchain.validation.execution import execution_notes, island_notes
from toolchain.validation.gates import judge
from toolchain.validation.results import RuntimeResult, TensorResult, Validation
from toolchain.validation.tensors import compare_tensors
from toolchain.validation.tracks import Track, make_tracks, single_samples

TENSOR_SAMPLES = 2


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
    tracks = list(make_tracks(model, notes))
    checked = samples.checked(input_types(model.graph))
    scorer = _run_all(model, tracks, checked, _Scorer(metric, [], []), progress)
    deployed = [track for track in tracks if not track.is_float]
    notes += [*_stream_notes(checked, scorer), *island_notes(model.quantized)]
    found = Validation(
        samples=sum(len(reference[0]) for reference in scorer.references),
        score_name=scorer.name,
        reference_score=scorer.score(scorer.references),
        runtimes=tuple(_runtime_result(track, scorer, checked) for track in tracks),
        agreements=compare_runtimes(model.quantized, deployed, gates.output_steps),
        tensors=_tensors(model.quantized, deployed, list(islice(_singles(checked), TENSOR_SAMPLES))),
        notes=(*notes, *_told(model), *execution_notes(deployed)),
    )
    return judge(found, gates)


def raise_missed(validation: Validation) -> None:
    """Raises DisagreementError that lists the missed gates and names the first diverging tensor."""
    if validation.missed:
        lines = [f"{len(validation.missed)} gate(s) missed:", *(f"  - {line}" for line in validation.missed)]
        lines += [f"  {validation.origin}"] if validation.origin else []
        hint = "report.html shows where the error arises; nothing was deployed"
        raise DisagreementError("\n".join(lines), hint=hint)


@dataclass
class _Scorer:
    """Scores outputs: the user's metric, else top-1 where there are labels and classes, else nothing."""

    metric: Metric | None
    references: list[list[np.ndarray]]
    labels: list[np.ndarray | None]

    @property
    def name(self) -> str | None:
        if self.metric is not None:
            return getattr(self.metric, "__name__", "metric")
        first = self.references[0][0]
        judged = (is_classes(first) and is_real(first)) or is_class_numbers(first)
        return "top-1" if judged and self._all_labels() is not None else None

    def score(self, outputs: Sequence[Sequence[np.ndarray]]) -> float | None:
        if self.name is None:
            return None
        columns = [np.concatenate(column) for column in zip(*outputs, strict=True)]
        known = self._all_labels()
        labels = None if known is None else known[: len(columns[0])]
        if self.metric is not None:
            name = str(self.name)
            found = call_user_function(self.metric, columns, labels, what="metric", spec=name)
            if not isinstance(found, (int, float, np.generic)) or not np.isfinite(found):
                raise OptionError(f"the metric {name} gave {found!r}", hint="return one finite number")
            return float(found)
        return None if labels is None else accuracy(columns[0], labels)

    def _all_labels(self) -> np.ndarray | None:
        known = [labels for labels in self.labels if labels is not None]
        return np.concatenate(known) if known and len(known) == len(self.labels) else None


def _run_all(
    model: ExportedModel, tracks: Sequence[Track], samples: SampleSet, scorer: _Scorer, progress: Progress
) -> _Scorer:
    """Stream the judging samples through the reference and every track; `scorer` with what it needs to score."""
    total = -(-samples.judging_count // samples.batch_size)
    for batch in progress.track(samples.judging(), description="check", total=total):
        targets = predict(model.reference, [batch.inputs])
        scorer.references.append(targets)
        scorer.labels.append(batch.labels)
        # compression makes the float files differ from the reference on purpose
        own = predict(model.graph, [batch.inputs]) if any(track.is_float for track in tracks) else targets
        for track in tracks:
            track.judge(batch, own if track.is_float else targets, targets)
    return scorer


def _singles(samples: SampleSet) -> Iterator[tuple[np.ndarray, ...]]:
    for batch in samples.judging():
        yield from single_samples(batch)


def _stream_notes(samples: SampleSet, scorer: _Scorer) -> Iterator[str]:
    if (streams := samples.streams) is not None and scorer.name is not None:
        fed = ", ".join(f"output {output} to {name}" for name, output in streams.feedback.items())
        count = samples.judging_count // streams.steps
        yield f"{scorer.name} along {count} streams of {streams.steps} steps, each file's own state fed back: {fed}"


def _told(model: ExportedModel) -> Iterator[str]:
    """What stages have found that a file's reader wants to know."""
    for record in model.history:
        yield from record.facts.get("without_blocks", ())


def _score(track: Track, scorer: _Scorer, samples: SampleSet) -> float | None:
    """The score in a runtime; along streams, what the file gave goes back into it."""
    if track.most_samples or scorer.name is None:
        return None  # a user's metric is made for the whole set, not for the few samples that reference kernels run
    if samples.streams is None:
        return scorer.score([track.real(outputs) for outputs in track.outputs])
    streams = (batch for _, batch in samples.whole_streams("judging"))
    steps = (followed(track.run, single_samples(batch), samples.fed_back) for batch in streams)
    return scorer.score([outputs for stream in steps for _, outputs in stream])


def _runtime_result(track: Track, scorer: _Scorer, samples: SampleSet) -> RuntimeResult:
    found, near = track.comparison, track.fidelity or track.comparison
    return RuntimeResult(
        file=track.file,
        runtime=track.runner.name,
        samples=found.samples,
        sqnr_db=near.sqnr_db,
        cosine=near.cosine,
        max_error_steps=None if found.steps is None else found.max_error_steps,
        relative_error=found.relative_error,
        same_class=near.same_class,
        score=_score(track, scorer, samples),
        latency_ms=track.latency_ms,
        is_reduced=track.is_reduced,
        is_compressed=track.fidelity is not None,
    )


def _tensors(
    model: QuantizedGraph, tracks: Sequence[Track], samples: Sequence[Sequence[np.ndarray]]
) -> tuple[TensorResult, ...]:
    if not tracks:
        return ()
    runners = [track.runner for track in tracks]
    return compare_tensors(model, runners, samples, takes_integers=tracks[0].takes_integers)
