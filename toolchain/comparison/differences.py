"""What was found between two artifacts, as values a report can print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from toolchain.comparison.matching import By
from toolchain.formats.artifact import TensorFacts
from toolchain.graph import DType


@dataclass(frozen=True)
class Side:
    """One artifact in figures. `ops` counts under the artifact's own names; `constant_bytes` are as stored."""

    name: str
    format: str
    bytes: int
    constant_bytes: int
    tensors: int
    ops: Mapping[str, int]

    @property
    def op_count(self) -> int:
        return sum(self.ops.values())


@dataclass(frozen=True)
class TensorDiff:
    """A tensor that both have, and in what it differs: shape, layout, dtype, quantization, granularity, scale, zero
    point, axis.

    `layout`: the same sizes in another order. `quantization`: only one has a scale; `granularity`: one has one scale,
    the other one a channel. `zero point` leaves out what only
    follows from storing the same integers as uint8, 128 higher; `axis` what only follows from the layout.
    """

    first: TensorFacts
    second: TensorFacts
    by: By
    differences: tuple[str, ...]

    @property
    def scale_ratio(self) -> float | None:
        """The factor between the scales where they differ most, at least 1."""
        if len(self.first.scale) != len(self.second.scale) or not self.first.scale:
            return None
        with np.errstate(all="ignore"):  # a damaged file may hold any scale
            quotients = np.asarray(self.second.scale, np.float64) / np.asarray(self.first.scale, np.float64)
            return float(np.maximum(quotients, 1 / quotients).max())


@dataclass(frozen=True)
class OutputDiff:
    """One output of both on the same samples, as real values; the first artifact's are what errors are relative to.

    `steps` is set where both are integers of one scale, `same_class` (a share) where they are rows of scores.
    """

    first: str
    second: str
    max_difference: float
    relative_error: float
    sqnr_db: float
    steps: int | None
    same_class: float | None


@dataclass(frozen=True)
class ArtifactDiff:
    """Two artifacts side by side. `only_first` and `only_second` name tensors without a counterpart, but for those that
    only stand between reals and integers; `notes` say what could not be compared, and why."""

    first: Side
    second: Side
    tensors: tuple[TensorDiff, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    samples: int = 0
    samples_from: str = ""
    runtimes: tuple[str, str] | None = None
    outputs: tuple[OutputDiff, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def counted_ops(self) -> dict[str, tuple[int, int]] | None:
        """How often each op is in both, where both use the same names for them; else None."""
        formats = {self.first.format, self.second.format}
        if len(formats) > 1 and formats & {"onnx", "tflite"}:
            return None  # saved stages all use the graph's words
        names = sorted({*self.first.ops, *self.second.ops})
        return {name: (self.first.ops.get(name, 0), self.second.ops.get(name, 0)) for name in names}

    @property
    def difference_counts(self) -> dict[str, int]:
        """How many tensors differ in what."""
        return dict(Counter(kind for tensor in self.tensors for kind in tensor.differences))

    def plain(self) -> dict[str, Any]:
        """As JSON takes it; an infinite figure is null."""
        found: dict[str, Any] = _finite(asdict(self))
        found["counted_ops"] = self.counted_ops
        found["difference_counts"] = self.difference_counts
        return found


def tensor_differences(first: TensorFacts, second: TensorFacts) -> tuple[str, ...]:
    """In what two tensors differ, as TensorDiff says it."""
    found = []
    if not _may_be(first.shape, second.shape):
        found.append("layout" if _may_be_reordered(first.shape, second.shape) else "shape")
    if first.dtype is not second.dtype:
        found.append("dtype")
    if bool(first.scale) != bool(second.scale):
        found.append("quantization")
    elif first.scale:
        found += _scale_differences(first, second)
    return tuple(found)


def _may_be(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether two shapes may be one: a size that is not known, -1, differs from nothing."""
    return len(first) == len(second) and all(a == b or -1 in (a, b) for a, b in zip(first, second, strict=True))


def _may_be_reordered(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """The same in any order: what is left of either must be met by sizes that are not known."""
    one, other = Counter(first), Counter(second)
    unknown = one.pop(-1, 0), other.pop(-1, 0)
    return len(first) == len(second) and (one - other).total() <= unknown[1] and (other - one).total() <= unknown[0]


def _scale_differences(first: TensorFacts, second: TensorFacts) -> list[str]:
    if len(first.scale) != len(second.scale):
        return ["granularity"]
    found = []
    if not np.array_equal(np.asarray(first.scale, np.float32), np.asarray(second.scale, np.float32), equal_nan=True):
        found.append("scale")
    if _zero_points(first) != _zero_points(second):
        found.append("zero point")
    # one scale lies along every axis
    if len(first.scale) > 1 and first.axis != second.axis:
        along = [_size(tensor) for tensor in (first, second)]
        if first.shape == second.shape or along[0] != along[1]:
            found.append("axis")
    return found


def _size(tensor: TensorFacts) -> int | None:
    """Of the axis that the scales lie along."""
    known = tensor.axis is not None and 0 <= tensor.axis < len(tensor.shape)
    return tensor.shape[tensor.axis] if known and tensor.axis is not None else None


def _zero_points(tensor: TensorFacts) -> list[int]:
    shift = {DType.UINT8: 128, DType.UINT16: 32768}.get(tensor.dtype, 0)
    return [zero - shift for zero in tensor.zero_point]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
