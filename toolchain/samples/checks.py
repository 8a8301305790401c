"""What a sample must be, and the one clear message where it is not.

Dtypes: a value is cast where no information can be lost without notice. Numbers of one kind are cast to each
other (float64 to float32, int64 to int32 where every value fits, 0 and 1 to bool), and small integers to float
(uint8, int8, uint16, int16 to float32: a picture for a model that normalises by itself). Wide integers are refused for
a float input, since they are labels or token ids in the wrong place more often than not; floats are refused for an
integer input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import SampleError


@dataclass(frozen=True)
class InputType:
    """One input of a model: its shape (N, ...) with the batch dimension first, and its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, without N."""
        return self.shape[1:]


@dataclass(frozen=True)
class Sample:
    """One sample: its inputs without a batch dimension, its class if known, and where it comes from."""

    inputs: tuple[NDArray[Any], ...]
    label: int | None
    where: str


class Checker:
    """Checks samples one by one against the types of a model's inputs, or else against the first sample."""

    def __init__(self, set_name: str, input_types: Sequence[InputType] | None, input_names: Sequence[str]) -> None:
        self._set_name = set_name
        self._types = None if input_types is None else tuple(input_types)
        self._is_model = input_types is not None
        self._order = self._by_name(input_names)
        self._labelled: bool | None = None

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample in the model's order and dtypes; raise SampleError where it does not fit."""
        if self._types is None:
            self._types = _types_of(sample)
        self._check_count(sample, self._types)
        ordered = [sample.inputs[i] for i in self._order] if self._order else sample.inputs
        pairs = zip(ordered, self._types, strict=True)
        inputs = tuple(self._fit(value, wanted, sample.where) for value, wanted in pairs)
        self._check_label(sample)
        return Sample(inputs, sample.label, sample.where)

    def _by_name(self, names: Sequence[str]) -> list[int] | None:
        """Which array of a sample goes to which input: by name where both have the same names, in order where they
        share none. Raises SampleError where only some of them fit."""
        wanted = [] if self._types is None else [kind.name for kind in self._types]
        if not set(names) & set(wanted) or len(names) != len(wanted):
            return None
        if sorted(names) != sorted(wanted):
            raise SampleError(
                f"samples name their arrays {list(names)}, but the model's inputs are {wanted}",
                where=f"sample set {self._set_name!r}",
                hint="name the arrays after the model's inputs",
            )
        return [list(names).index(name) for name in wanted]

    def _check_count(self, sample: Sample, types: Sequence[InputType]) -> None:
        if len(sample.inputs) == len(types):
            return
        names = ", ".join(wanted.name for wanted in types)
        takes = f"the model takes {len(types)} ({names})" if self._is_model else f"the first has {len(types)}"
        raise SampleError(
            f"a sample holds {len(sample.inputs)} arrays, but {takes}",
            where=self._place(sample.where),
            hint="give a tuple or dict of arrays, one an input; pass labelled=True if the last is a label",
        )

    def _check_label(self, sample: Sample) -> None:
        if self._labelled is None:
            self._labelled = sample.label is not None
        if self._labelled != (sample.label is not None):
            raise SampleError(
                "some samples have a label and others have none",
                where=self._place(sample.where),
                hint="label all samples, or none",
            )

    def _fit(self, value: NDArray[Any], wanted: InputType, where: str) -> NDArray[Any]:
        shape = wanted.sample_shape
        if value.shape == (1, *shape):
            value = value[0]  # one sample with its batch dimension left on, as models are called by hand
        if value.shape != shape:
            raise SampleError(
                f"a sample for input {wanted.name!r} has shape {value.shape}, but {shape} is "
                + ("what the model takes" if self._is_model else "the shape of the first sample"),
                where=self._place(where),
                hint=_shape_hint(value.shape, shape),
            )
        value = self._cast(value, wanted, where)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise SampleError(
                f"a sample for input {wanted.name!r} holds {_count_not_finite(value)}",
                where=self._place(where),
                hint="leave such samples out, or mend the preprocessing",
            )
        return value

    def _cast(self, value: NDArray[Any], wanted: InputType, where: str) -> NDArray[Any]:
        if value.dtype == wanted.dtype:
            return value
        fits = np.can_cast(value.dtype, wanted.dtype, "safe")
        if fits or _same_kind(value.dtype, wanted.dtype):
            with np.errstate(over="ignore"):  # too large for float32 gives inf, which is refused with its place
                cast = value.astype(wanted.dtype)
            if fits or value.dtype.kind == "f" or np.array_equal(cast, value):
                return cast
            problem = f"{value.dtype} values that do not fit {wanted.dtype}"
        else:
            problem = f"dtype {value.dtype}, but the input takes {wanted.dtype}"
        raise SampleError(
            f"a sample for input {wanted.name!r} has {problem}",
            where=self._place(where),
            hint=f"convert the samples to {wanted.dtype}",
        )

    def _place(self, where: str) -> str:
        return f"{where}, sample set {self._set_name!r}"


def _same_kind(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Say whether both are float, or both whole. (numpy's "same_kind" also lets int64 become float32.)"""
    whole = {"i", "u", "b"}
    return found.kind == wanted.kind or {found.kind, wanted.kind} <= whole


def _types_of(sample: Sample) -> tuple[InputType, ...]:
    pairs = enumerate(sample.inputs)
    return tuple(InputType(str(position), (1, *value.shape), value.dtype) for position, value in pairs)


def _shape_hint(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(found) == len(wanted) + 1 and found[1:] == wanted:
        return "these look like batches: pass batched=True, or give one sample at a time"
    if len(wanted) == 3 and found == (wanted[1], wanted[2], wanted[0]):
        return "these look like (H, W, C): transpose them to (C, H, W)"
    if len(found) == len(wanted) == 3 and found[0] == wanted[0]:
        return "resize or crop the pictures; for a folder of pictures write a TOML with [preprocess] crop"
    return "bring the samples to that shape"


def _count_not_finite(value: NDArray[Any]) -> str:
    bad = ~np.isfinite(value)
    first = tuple(int(axis) for axis in np.argwhere(bad)[0])
    nan = int(np.isnan(value).sum())
    counted = [(nan, "NaN"), (int(bad.sum()) - nan, "infinite")]
    return " and ".join(f"{n} {what}" for n, what in counted if n) + f" values, the first at index {first}"
