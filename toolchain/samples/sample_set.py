"""A sample set: what calibrates a model and, kept apart from it, what judges the result.

A set reads its samples anew for every call and holds at most one batch, so that a thousand samples need no
more memory than a hundred. Every sample is checked as it passes (`checks.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import OptionError, SampleError
from toolchain.samples.checks import Checker, InputType, Sample

Part = Literal["calibration", "judging"]

# Enough for ranges to settle (the default), and enough to tell accuracies a percent apart.
CALIBRATION_COUNT = 200
JUDGING_COUNT = 1000


@dataclass(frozen=True)
class Batch:
    """Some samples: each input (N, ...) with the same N, and labels (N,) int64 if there are any."""

    inputs: tuple[NDArray[Any], ...]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.inputs[0])


class Rows(Protocol):
    """Samples that are read by number, as often as wanted."""

    input_names: tuple[str, ...]
    """Names of the inputs in the order of `Sample.inputs`; empty where the source has none."""

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> Iterator[Sample]:
        """Yield the samples with these numbers, in this order."""
        ...

    def fingerprints(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Yield bytes that change whenever anything changes that determines these samples."""
        ...


@dataclass(frozen=True)
class Selection:
    """Some rows, by their numbers."""

    rows: Rows
    numbers: tuple[int, ...]

    def read(self) -> Iterator[Sample]:
        return self.rows.read(self.numbers)

    def first(self, count: int | None, name: str) -> Selection:
        """Select the first `count` of these rows (None: all). Raises SampleError where there are fewer."""
        if count is not None and count > len(self.numbers):
            raise SampleError(
                f"fewer samples than asked for: {len(self.numbers)} found, {count} asked for",
                where=f"sample set {name!r}",
                hint="give more, or lower the count",
            )
        return Selection(self.rows, self.numbers[:count])


@dataclass(frozen=True)
class Streams:
    """Samples that are steps of streams (`streams.py`): row n is step n % `steps` of stream n // `steps`. `feedback`
    maps the name of an input to the number of the output that goes back to it; the first `learning` streams come first
    when calibrating, so that others stay unseen where only the first samples are learned from."""

    feedback: Mapping[str, int]
    steps: int
    learning: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleSet:
    """Samples under a name, in two parts that share none. Two sets are equal when their digests are. `streams` is set
    where they are steps of streams."""

    name: str
    for_calibration: Selection
    for_judging: Selection
    batch_size: int = 32
    input_types: tuple[InputType, ...] | None = None
    streams: Streams | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise OptionError(f"batch size {self.batch_size} is not a positive number")

    @property
    def calibration_count(self) -> int:
        return len(self.for_calibration.numbers)

    @property
    def judging_count(self) -> int:
        return len(self.for_judging.numbers)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over the content of the samples of both parts, their labels, names and order."""
        return _digest(self.streams, self.for_calibration, self.for_judging)

    @cached_property
    def calibration_digest(self) -> str:
        """sha256 (hex) over what a stage makes of the set: the samples for calibration and how they are batched."""
        return hashlib.sha256(f"{_digest(self.streams, self.for_calibration)} {self.batch_size}".encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleSet) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def calibration(self) -> Iterator[Batch]:
        """Yield the samples to calibrate with, in batches; every call starts anew. Raises SampleError."""
        return self._batches("calibration", self.for_calibration)

    def judging(self) -> Iterator[Batch]:
        """Yield the samples to judge with, none of which `calibration` yields. Raises SampleError."""
        return self._batches("judging", self.for_judging)

    def whole_streams(self, part: Part) -> Iterator[tuple[int, Batch]]:
        """Yield the number of each stream that is wholly in a part, and its steps in order as one batch."""
        assert self.streams is not None
        selection = self.for_calibration if part == "calibration" else self.for_judging
        known, steps = set(selection.numbers), self.streams.steps
        for stream in sorted({number // steps for number in known}):
            numbers = tuple(range(stream * steps, (stream + 1) * steps))
            if known.issuperset(numbers):
                whole = replace(self, batch_size=steps)
                yield stream, next(whole._batches(part, Selection(selection.rows, numbers)))

    @property
    def fed_back(self) -> tuple[tuple[int, int], ...]:
        """Places of inputs in a batch and of the outputs that go back to them; none where there are no streams."""
        if self.streams is None:
            return ()
        names = list(self.input_names)
        if self.input_types is not None and {kind.name for kind in self.input_types} == set(names):
            names = [kind.name for kind in self.input_types]
        return tuple((names.index(name), output) for name, output in self.streams.feedback.items())

    def first_inputs(self) -> tuple[NDArray[Any], ...]:
        """Return the first calibration sample with N = 1, to serve as example inputs."""
        return next(self.with_batch_size(1).calibration()).inputs

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names the source gives the inputs, in its order; empty where it gives none."""
        return self.for_calibration.rows.input_names

    def with_batch_size(self, batch_size: int) -> SampleSet:
        """Return the same samples in batches of another size (the last batch may be smaller)."""
        return replace(self, batch_size=batch_size)

    def narrowed(self, calibration_count: int | None, judging_count: int | None) -> SampleSet:
        """Return the first samples of each part (None: all). Raises SampleError where there are fewer."""
        return replace(
            self,
            for_calibration=self.for_calibration.first(calibration_count, self.name),
            for_judging=self.for_judging.first(judging_count, self.name),
        )

    def checked(self, input_types: Sequence[InputType]) -> SampleSet:
        """Return the same samples, checked against what a model takes and cast to its dtypes as they stream.

        Where names of the samples and of the model's inputs are the same set, they are put in the model's
        order.
        """
        return replace(self, input_types=tuple(input_types))

    def _batches(self, part: Part, selection: Selection) -> Iterator[Batch]:
        count = len(selection.numbers)
        if not count:
            verb = "calibrate" if part == "calibration" else "judge"
            raise SampleError(
                f"there is no sample to {verb} with",
                where=f"sample set {self.name!r}",
                hint=f"give more samples, or set {part}_count",
            )
        checker = Checker(self.name, self.input_types, selection.rows.input_names)
        samples = (checker(sample) for sample in selection.read())
        for start in range(0, count, self.batch_size):
            yield _fill_batch(samples, min(self.batch_size, count - start))


def _fill_batch(samples: Iterator[Sample], size: int) -> Batch:
    """Put the next `size` samples in one batch, each as it is read, so that none is in memory twice."""
    first = next(samples)
    inputs = tuple(np.empty((size, *value.shape), value.dtype) for value in first.inputs)
    labels: list[int] = []
    for position, sample in enumerate(chain((first,), islice(samples, size - 1))):
        for batch, value in zip(inputs, sample.inputs, strict=True):
            batch[position] = value
        if sample.label is not None:
            labels.append(sample.label)
    return Batch(inputs, np.array(labels, np.int64) if labels else None)


def split(
    rows: Rows, name: str, *, calibration_count: int | None, judging_count: int | None, seed: int
) -> tuple[Selection, Selection]:
    """Choose by a seeded shuffle which rows calibrate and which judge.

    Where counts are not given, four fifths of the rows calibrate (at most 200) and the others judge (at most
    1,000). Raises SampleError where there are fewer rows than asked for.
    """
    available = len(rows)
    calibration, judging = counts(available, calibration_count, judging_count, name)
    order = [int(number) for number in np.random.default_rng(seed).permutation(available)]
    return (
        Selection(rows, tuple(order[:calibration])),
        Selection(rows, tuple(order[calibration : calibration + judging])),
    )


def counts(
    available: int, calibration: int | None, judging: int | None, name: str, *, what: str = "samples"
) -> tuple[int, int]:
    """Return how many samples calibrate and how many judge, given how many there are and were asked for."""
    if available == 0:
        raise SampleError(f"there are no {what}", where=f"sample set {name!r}", hint="check the source: it is empty")
    for part, asked in (("calibration", calibration), ("judging", judging)):
        if asked is not None and asked < (part == "calibration"):
            raise OptionError(f"{part}_count is {asked}", hint="give a positive number")
    if calibration is None:
        left = available - (available // 5 if judging is None else judging)
        calibration = max(1, min(CALIBRATION_COUNT, left))
    if judging is None:
        judging = max(0, min(JUDGING_COUNT, available - calibration))
    if calibration + judging > available:
        raise SampleError(
            f"fewer {what} than asked for: {available} found, but {calibration} to calibrate with "
            f"and {judging} to judge with are needed",
            where=f"sample set {name!r}",
            hint="give more, or lower calibration_count or judging_count",
        )
    return calibration, judging


def _digest(streams: Streams | None, *selections: Selection) -> str:
    whole = hashlib.sha256(b"" if streams is None else repr(streams).encode())
    for selection in selections:
        whole.update(repr((len(selection.numbers), selection.rows.input_names)).encode())
        for piece in selection.rows.fingerprints(selection.numbers):
            # The length keeps two pieces from being read as one.
            whole.update(len(piece).to_bytes(8, "little"))
            whole.update(piece)
    return whole.hexdigest()
