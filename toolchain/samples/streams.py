"""Streams: networks that hand their state to the caller, who gives it back with the next piece of the signal.

    y_t, s_t = network(x_t, s_{t-1})        t = 0 ... T - 1, s_{-1} given

A stream becomes T samples (x_t, s_{t-1}) whose states are the float network's own, in a mixed order, so that whatever
learns from a few samples meets all of the time. What is judged as it is used follows whole streams instead: the state
that a file gave goes back into it, so that what its rounding adds up to over time counts.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import OptionError, SampleError
from toolchain.imports import call_user_function, import_callable, is_import_spec
from toolchain.samples.checks import Sample
from toolchain.samples.elements import LABEL_KEYS, read_element
from toolchain.samples.sample_set import SampleSet, Selection, Streams
from toolchain.samples.spool import SpooledRows

Network: TypeAlias = Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]
"""Inputs (1, ...) in order -> outputs (1, ...), all leaves of what the float network gives."""


def stream_samples(
    network: Network,
    values: Mapping[str, Any],
    feedback: Mapping[str, int],
    *,
    judging: Mapping[str, Any] | None = None,
    name: str = "streams",
    calibration_count: int | None = None,
    judging_count: int | None = None,
    seed: int = 0,
) -> SampleSet:
    """Make a sample set of streams (S, T, ...) by input name, in the order of the network's inputs.

    feedback: for each input that an output goes back to, the number of that output. Such an input is given as what
        each stream starts with, (S, ...), and `labels` as (S, T) if there are any.
    judging: streams of the same kinds to judge with; else `judging_count` are kept apart, by default a fifth, at least
        one. Counts are of streams; without them all are taken.

    Raises SampleError: no time in an array, different numbers of streams, no stream left to judge with;
    OptionError: an input that there is not, an output that does not fit.
    """
    given = _Given.read(values, feedback, name)
    if judging is None:
        given, judged = given.split(judging_count or max(1, given.count // 5), name)
    else:
        judged = _Given.read(judging, feedback, f"{name} (judging)").first(judging_count, name)
    given = given.first(calibration_count, name)
    if judged.steps != given.steps:
        raise SampleError(
            f"streams of {given.steps} steps to calibrate with, but of {judged.steps} to judge with",
            where=f"sample set {name!r}",
            hint="give all streams the same number of steps",
        )
    learning = min(max(1, given.count * 3 // 4), given.count - 1)
    random = np.random.default_rng(seed)
    edge, steps = learning * given.steps, given.count * given.steps
    order = (*random.permutation(edge), *(edge + random.permutation(steps - edge)))
    return SampleSet(
        name=name,
        for_calibration=Selection(_followed(network, given), tuple(map(int, order))),
        for_judging=Selection(_followed(network, judged), tuple(range(judged.count * judged.steps))),
        streams=Streams(dict(feedback), given.steps, learning),
    )


@dataclass(frozen=True)
class _Given:
    """Streams as a user gives them: arrays (S, T, ...), or (S, ...) of what is fed back."""

    names: tuple[str, ...]
    arrays: tuple[NDArray[Any], ...]
    labels: NDArray[Any] | None
    feedback: Mapping[str, int]

    @classmethod
    def read(cls, values: Mapping[str, Any], feedback: Mapping[str, int], name: str) -> _Given:
        where = f"sample set {name!r}"
        element = read_element(values, where, batched=True, labelled=None)
        if unknown := sorted(set(feedback) - set(element.names)):
            raise OptionError(
                f"no input {', '.join(unknown)} to feed an output back to: there are {', '.join(element.names)}",
                where=where,
                hint="name an array of the streams and the number of an output, e.g. state=1",
            )
        given = cls(element.names, element.arrays, element.label, dict(feedback))
        given._check(where)
        return given

    def _check(self, where: str) -> None:
        parts = [*zip(self.names, self.arrays, strict=True)]
        parts += [] if self.labels is None else [(LABEL_KEYS[0], self.labels)]
        shapes = {name: array.shape for name, array in parts}
        timed = {shape[:2] for name, shape in shapes.items() if name not in self.feedback}
        if len(timed) != 1 or len(next(iter(timed))) < 2 or len({shape[:1] for shape in shapes.values()}) != 1:
            raise SampleError(
                f"no streams: arrays of shapes {shapes}",
                where=where,
                hint="give arrays (S, T, ...), labels (S, T), and (S, ...) of what is fed back: its start",
            )

    @property
    def count(self) -> int:
        return len(self.arrays[0])

    @property
    def steps(self) -> int:
        return next(
            int(array.shape[1]) for name, array in zip(self.names, self.arrays, strict=True) if self._is_timed(name)
        )

    def _is_timed(self, name: str) -> bool:
        return name not in self.feedback

    def split(self, judging: int, name: str) -> tuple[_Given, _Given]:
        """The first streams, and the last `judging` of them."""
        if self.count <= judging:
            raise SampleError(
                f"{self.count} stream(s) cannot both calibrate and judge: {judging} are kept apart to judge with",
                where=f"sample set {name!r}",
                hint="give more streams",
            )
        return self._some(slice(None, -judging)), self._some(slice(-judging, None))

    def first(self, count: int | None, name: str) -> _Given:
        """The first `count` streams (None: all). Raises SampleError where there are fewer."""
        if count is not None and count > self.count:
            raise SampleError(
                f"fewer streams than asked for: {self.count} found, {count} asked for",
                where=f"sample set {name!r}",
                hint="give more, or lower the count",
            )
        return self._some(slice(None, count))

    def _some(self, part: slice) -> _Given:
        labels = None if self.labels is None else self.labels[part]
        return _Given(self.names, tuple(array[part] for array in self.arrays), labels, self.feedback)

    def at(self, stream: int, step: int) -> list[NDArray[Any]]:
        """The inputs (1, ...) of a step; of what is fed back, what the stream starts with."""
        return [
            array[stream : stream + 1, step] if self._is_timed(name) else array[stream : stream + 1]
            for name, array in zip(self.names, self.arrays, strict=True)
        ]


def _followed(network: Network, given: _Given) -> SpooledRows:
    """Every step of every stream with the state that the float network meets it in."""
    rows = SpooledRows(given.names)
    pairs = tuple((given.names.index(name), output) for name, output in given.feedback.items())
    for stream in range(given.count):
        steps = (given.at(stream, step) for step in range(given.steps))
        for step, (inputs, _) in enumerate(followed(network, steps, pairs)):
            label = None if given.labels is None else int(given.labels[stream, step])
            rows.append(Sample(tuple(array[0] for array in inputs), label, f"step {step} of stream {stream}"))
    return rows


def followed(
    network: Network, rows: Iterable[Sequence[NDArray[Any]]], pairs: Sequence[tuple[int, int]]
) -> Iterator[tuple[list[NDArray[Any]], list[NDArray[Any]]]]:
    """The inputs and outputs (1, ...) of each step of one stream. `pairs` are the places of inputs and of the outputs
    that go back to them; at the first step the inputs are those of `rows`.

    Raises OptionError where there is no such output, or it is shaped otherwise than the input.
    """
    kept: dict[int, NDArray[Any]] = {}
    for row in rows:
        inputs = [kept.get(place, array) for place, array in enumerate(row)]
        outputs = list(network(inputs))
        for place, output in pairs:
            shapes = [tuple(array.shape) for array in outputs]
            if not 0 <= output < len(outputs) or shapes[output] != tuple(inputs[place].shape):
                raise OptionError(
                    f"output {output} cannot go back to an input of shape {tuple(inputs[place].shape)}: "
                    f"outputs are of shapes {shapes}",
                    hint="outputs are counted from 0, in the order in which the network gives them",
                )
            kept[place] = outputs[output]
        yield inputs, outputs


def read_streams(source: Any) -> tuple[str, Mapping[str, Any], Mapping[str, Any] | None]:
    """A name, streams to calibrate with and to judge with (None: some of the same), as `stream_samples` takes them,
    from an .npz, `package.module:function`, or what such a function returns: one dict of arrays, or a pair of them.

    Raises OptionError for anything else, SampleError for a damaged .npz.
    """
    if isinstance(source, (str, Path)) and str(source).endswith(".npz"):
        try:
            with np.load(source, allow_pickle=False) as archive:
                return Path(source).stem, {name: archive[name] for name in archive.files}, None
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            hint = "save arrays of numbers with numpy.savez"
            raise SampleError(f"the .npz is not readable: {error}", where=str(source), hint=hint) from error
    name = "streams"
    if isinstance(source, str) and is_import_spec(source):
        name, source = source, call_user_function(import_callable(source, what="streams"), what="streams", spec=source)
    parts = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if not isinstance(parts[0], Mapping) or not isinstance(parts[1], (Mapping, type(None))):
        raise OptionError(
            f"streams are arrays by input name, not {type(source).__name__}",
            hint="with feedback give an .npz, a dict of arrays or package.module:function that returns one",
        )
    return name, parts[0], parts[1]


def first_step(values: Mapping[str, Any], feedback: Mapping[str, int], name: str) -> dict[str, NDArray[Any]]:
    """The inputs (1, ...) by name of the first step of the first stream, to trace with. Raises as `stream_samples`."""
    given = _Given.read(values, feedback, name)
    return dict(zip(given.names, given.at(0, 0), strict=True))


def parse_feedback(text: str | None) -> dict[str, int]:
    """`state=1,cell=2` as the number of an output by the name of an input. Raises OptionError for anything else."""
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    if any(not name.strip() or not number.strip().isdigit() for name, _, number in pairs):
        raise OptionError(f"feedback {text!r} says nothing", hint="write INPUT=OUTPUT, outputs from 0: state=1")
    return {name.strip(): int(number) for name, _, number in pairs}
