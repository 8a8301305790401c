"""Samples from Python values: arrays, sequences, dicts, generators, torch DataLoaders.

What can be read again (arrays, lists, tuples) stays where it is; everything else is read once and spooled to
disk, also a DataLoader that shuffles: a second pass would mix the samples that calibrate with those that
judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import SampleError, ToolchainError
from toolchain.imports import describe, user_line
from toolchain.samples.checks import Sample
from toolchain.samples.elements import Element, read_element
from toolchain.samples.sample_set import (
    CALIBRATION_COUNT,
    JUDGING_COUNT,
    Rows,
    SampleSet,
    Selection,
    split,
)
from toolchain.samples.spool import SpooledRows


class ColumnRows:
    """Whole arrays, one an input, whose first dimension counts the samples."""

    def __init__(
        self,
        columns: Sequence[NDArray[Any]],
        labels: NDArray[Any] | None = None,
        input_names: tuple[str, ...] = (),
    ) -> None:
        self.input_names = input_names
        self._columns = columns
        self._labels = labels

    def __len__(self) -> int:
        return len(self._columns[0])

    def read(self, numbers: Sequence[int]) -> Iterator[Sample]:
        """Yield samples by number; see `Rows`."""
        for number in numbers:
            label = None if self._labels is None else int(self._labels[number])
            yield Sample(tuple(column[number] for column in self._columns), label, f"sample {number}")

    def fingerprints(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Yield what determines the samples; see `Rows`."""
        return (fingerprint(sample) for sample in self.read(numbers))


class ListRows:
    """A list or tuple of samples, each read as an element when its turn comes."""

    def __init__(self, values: Sequence[Any], labelled: bool | None) -> None:
        self._values = values
        self._labelled = labelled
        self.input_names = self._element(0).names if values else ()

    def __len__(self) -> int:
        return len(self._values)

    def _element(self, number: int) -> Element:
        where = f"sample {number}"
        return read_element(self._values[number], where, batched=False, labelled=self._labelled)

    def read(self, numbers: Sequence[int]) -> Iterator[Sample]:
        """Yield samples by number; see `Rows`."""
        for number in numbers:
            element, where = self._element(number), f"sample {number}"
            yield Sample(_in_order(element, self.input_names, where), _one_label(element.label, where), where)

    def fingerprints(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Yield what determines the samples; see `Rows`."""
        return (fingerprint(sample) for sample in self.read(numbers))


def fingerprint(sample: Sample) -> bytes:
    """Return a hash over the content, shapes and dtypes of a sample, and its label."""
    whole = hashlib.sha256(repr(sample.label).encode())
    for value in sample.inputs:
        whole.update(repr((value.shape, value.dtype.str)).encode())
        whole.update(np.ascontiguousarray(value).tobytes())
    return whole.digest()


def samples_from(
    values: Any,
    *,
    name: str = "samples",
    judging: Any = None,
    calibration_count: int | None = None,
    judging_count: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    batched: bool | None = None,
    labelled: bool | None = None,
) -> SampleSet:
    """Make a sample set of Python values.

    values: one array or tensor (N, ...), a pair (X, y) of them, a dict of them by input name (and `labels`
        (N,) if there are any), or any iterable of samples: arrays, tuples or dicts of arrays, (array, label)
        pairs, or batches of these as a torch DataLoader gives them. An endless one is read as far as needed.
    judging: values of the same kinds to judge with; else part of `values` is kept apart, chosen by `seed`.
    batched: whether an element is a batch; None: only where a DataLoader says so.
    labelled: whether a tuple ends with its label; None: where that is a whole number beside one array.

    Without counts, four fifths calibrate (at most 200) and the others judge (at most 1,000).
    Raises SampleError: empty, no arrays, unlike each other, or fewer than asked for.
    """
    if isinstance(values, SampleSet):
        return values.narrowed(calibration_count, judging_count).with_batch_size(batch_size)
    if judging is None:
        wanted = (calibration_count or CALIBRATION_COUNT) + (JUDGING_COUNT if judging_count is None else judging_count)
        rows = _rows(values, name, wanted, batched, labelled)
        parts = split(rows, name, calibration_count=calibration_count, judging_count=judging_count, seed=seed)
        return SampleSet(name=name, for_calibration=parts[0], for_judging=parts[1], batch_size=batch_size)
    return SampleSet(
        name=name,
        for_calibration=_first(values, name, calibration_count, batched, labelled),
        for_judging=_first(judging, f"{name} (judging)", judging_count, batched, labelled),
        batch_size=batch_size,
    )


def _first(values: Any, name: str, count: int | None, batched: bool | None, labelled: bool | None) -> Selection:
    """Select the first `count` of the values given for one part, or all of them (at most 1,000)."""
    rows = _rows(values, name, JUDGING_COUNT if count is None else count, batched, labelled)
    whole = Selection(rows, tuple(range(len(rows))))
    return whole.first(min(len(rows), JUDGING_COUNT) if count is None else count, name)


def _rows(values: Any, name: str, limit: int, batched: bool | None, labelled: bool | None) -> Rows:
    if isinstance(values, Mapping):
        return _columns(values, name)
    if _is_columns_and_labels(values, labelled):
        return _columns({"": values[0], "labels": values[1]}, name)
    if hasattr(values, "shape") and hasattr(values, "dtype"):
        return _columns({"": values}, name)
    if isinstance(values, (list, tuple)) and not batched:
        return ListRows(values, labelled)
    if batched is None:
        batched = _gives_batches(values)
    return _spool(values, name, limit, batched=batched, labelled=labelled)


def _is_columns_and_labels(values: Any, labelled: bool | None) -> bool:
    """Say whether values are the pair (X, y) of whole arrays (N, ...) and (N,), y whole numbers."""
    if labelled is False or not isinstance(values, tuple) or len(values) != 2:
        return False
    shapes = [tuple(getattr(value, "shape", ())) for value in values]
    lengths_agree = len(shapes[0]) > 1 and len(shapes[1]) == 1 and shapes[0][0] == shapes[1][0]
    return lengths_agree and "int" in str(values[1].dtype)


def _columns(values: Mapping[str, Any], name: str) -> ColumnRows:
    where = f"sample set {name!r}"
    element = read_element(values, where, batched=True, labelled=None)
    lengths = {key: len(array) if array.ndim else -1 for key, array in zip(element.names, element.arrays, strict=True)}
    if element.label is not None:
        lengths["labels"] = len(element.label) if element.label.ndim == 1 else -1
    if len(set(lengths.values())) > 1 or -1 in lengths.values():
        raise SampleError(
            f"arrays of different numbers of samples: {lengths}".replace("-1", "none"),
            where=where,
            hint="give arrays (N, ...) with the same N, and labels (N,)",
        )
    names = element.names if element.names != ("",) else ()
    return ColumnRows(element.arrays, element.label, names)


def _gives_batches(values: Any) -> bool:
    """Say whether values are a DataLoader that collates; told by its fields, to do without torch."""
    return hasattr(values, "dataset") and (
        getattr(values, "batch_size", None) is not None or getattr(values, "batch_sampler", None) is not None
    )


def _spool(values: Any, name: str, limit: int, *, batched: bool, labelled: bool | None) -> SpooledRows:
    samples = _each_sample(values, name, batched, labelled)
    rows: SpooledRows | None = None
    for names, sample in islice(samples, limit):
        rows = rows or SpooledRows(names)
        rows.append(sample)
    return rows or SpooledRows()


def _each_sample(
    values: Any, name: str, batched: bool, labelled: bool | None
) -> Iterator[tuple[tuple[str, ...], Sample]]:
    """Yield the names of the inputs and each sample; batches come apart."""
    number = 0
    names: tuple[str, ...] | None = None
    for position, value in enumerate(_guarded(values, name)):
        where = f"batch {position}" if batched else f"sample {position}"
        element = read_element(value, where, batched=batched, labelled=labelled)
        names = element.names if names is None else names
        arrays = _in_order(element, names, where)
        if not batched:
            yield names, Sample(arrays, _one_label(element.label, where), where)
            continue
        for row in range(_batch_length(arrays, element.label, where)):
            label = None if element.label is None else int(element.label[row])
            yield names, Sample(tuple(array[row] for array in arrays), label, f"sample {number} (in {where})")
            number += 1


def _guarded(values: Any, name: str) -> Iterator[Any]:
    """Iterate over foreign code: what it raises becomes a SampleError that says where."""
    position = 0
    try:
        for position, value in enumerate(_iterable(values, name)):  # noqa: B007  the position is for the message
            yield value
    except ToolchainError:
        raise
    except Exception as error:
        raise SampleError(
            f"the samples could not be read: {describe(error)}",
            where=f"{user_line(error)}, after {position} elements of sample set {name!r}",
            hint="mend what yields the samples",
        ) from error


def _iterable(values: Any, name: str) -> Iterable[Any]:
    if hasattr(values, "__iter__"):
        return values  # type: ignore[no-any-return]
    if hasattr(values, "__getitem__") and hasattr(values, "__len__"):  # a map-style torch Dataset
        return (values[number] for number in range(len(values)))
    raise SampleError(
        f"samples of type {type(values).__name__} cannot be iterated over",
        where=f"sample set {name!r}",
        hint="give arrays, an iterable of samples, or a torch DataLoader",
    )


def _in_order(element: Element, names: tuple[str, ...], where: str) -> tuple[NDArray[Any], ...]:
    """Return the arrays in the order of the first element, since a dict may change its own."""
    if element.names == names:
        return element.arrays
    if sorted(element.names) != sorted(names):
        raise SampleError(
            f"a sample names its arrays {list(element.names)}, but the first names them {list(names)}",
            where=where,
            hint="give every sample the same keys",
        )
    return tuple(element.arrays[element.names.index(name)] for name in names)


def _one_label(label: NDArray[Any] | None, where: str) -> int | None:
    if label is None:
        return None
    if label.size != 1:
        raise SampleError(
            f"a label has shape {label.shape}, but is one whole number",
            where=where,
            hint="give one class number a sample; pass labelled=False if it is a second input",
        )
    return int(label.reshape(()))


def _batch_length(arrays: Sequence[NDArray[Any]], label: NDArray[Any] | None, where: str) -> int:
    every = [*arrays] if label is None else [*arrays, label]
    lengths = {len(array) if array.ndim else -1 for array in every}
    if len(lengths) != 1 or -1 in lengths:
        shapes = ", ".join(str(array.shape) for array in every)
        raise SampleError(
            f"a batch holds arrays of shapes {shapes}, which do not begin with the same N",
            where=where,
            hint="give arrays (N, ...) and labels (N,)",
        )
    return lengths.pop()
