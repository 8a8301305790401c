"""Both artifacts on the same samples, and how far their outputs are apart.

With a the first artifact's real values and b the second's, over all samples:

* max difference = max |b - a|,  relative error = max |b - a| / max |a|
* SQNR = 10 log10(sum a^2 / sum (b - a)^2) in dB, at most 300
* steps = max |b - a| / scale, where both are integers of that scale
* same class = share of rows whose largest value is at the same place, where outputs are rows (N, C) of scores
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import log10

import numpy as np

from toolchain.comparison.differences import OutputDiff
from toolchain.comparison.execution import Executable, Port
from toolchain.comparison.matching import pair_ends
from toolchain.errors import UnsupportedError

_CHANNELS_LAST = (0, 2, 3, 1)
_MOST_DB = 300.0


@dataclass(frozen=True)
class Joint:
    """An in- or output of both: where it is among those of each, what it is there, and the axes (None: as they are)
    that bring each to the layout both are compared in."""

    places: tuple[int, int]
    ports: tuple[Port, Port]
    axes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    shape: tuple[int, ...]

    def given(self, side: int, reals: np.ndarray) -> np.ndarray:
        """`reals` as the artifact on `side` takes them."""
        axes = self.axes[side]
        return self.ports[side].stored(reals if axes is None else reals.transpose(np.argsort(axes)))

    def real(self, side: int, stored: np.ndarray) -> np.ndarray:
        """Real values of what the artifact on `side` gave, in the layout both are compared in."""
        axes = self.axes[side]
        return self.ports[side].real(stored if axes is None else stored.transpose(axes))


def join_ports(first: Sequence[Port], second: Sequence[Port], kind: str) -> list[Joint]:
    """Pairs of in- or outputs. Raises UnsupportedError where their numbers or shapes differ."""
    names = [port.name for port in first], [port.name for port in second]
    pairs = pair_ends(*names)
    if len(pairs) != len(first) or len(pairs) != len(second):
        raise UnsupportedError(f"{len(first)} {kind} and {len(second)}")
    joints = []
    for one, other in pairs:
        places = names[0].index(one), names[1].index(other)
        joints.append(_join(places, (first[places[0]], second[places[1]])))
    return joints


def _join(places: tuple[int, int], ports: tuple[Port, Port]) -> Joint:
    for one, other in product(_views(ports[0]), _views(ports[1])):
        shapes = [_seen(port.shape, axes) for port, axes in zip(ports, (one, other), strict=True)]
        if len(shapes[0]) == len(shapes[1]) and all(a == b or -1 in (a, b) for a, b in zip(*shapes, strict=True)):
            return Joint(places, ports, (one, other), tuple(map(max, *shapes)) if shapes[0] else ())
    raise UnsupportedError(f"{ports[0].name} is {list(ports[0].shape)}, {ports[1].name} is {list(ports[1].shape)}")


def _views(port: Port) -> list[tuple[int, ...] | None]:
    """How the port may lie: as it says, or, where its layout is only presumed, as the file stores it."""
    return [None] if port.as_stored in (None, port.shape) else [None, _CHANNELS_LAST]


def _seen(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...]:
    return shape if axes is None else tuple(shape[axis] for axis in axes)


def compare_outputs(
    loaded: tuple[Executable, Executable],
    inputs: Sequence[Joint],
    outputs: Sequence[Joint],
    samples: Iterable[Sequence[np.ndarray]],
) -> tuple[int, tuple[OutputDiff, ...]]:
    """How many samples both were run on, and what was found. Raises UnsupportedError where one cannot be run."""
    sums = [_Sum(joint) for joint in outputs]
    count = 0
    for reals in samples:
        given = [_ordered(side, inputs, reals) for side in (0, 1)]
        found = [executable.run(arrays) for executable, arrays in zip(loaded, given, strict=True)]
        for joint, total in zip(outputs, sums, strict=True):
            total.add(*(found[side][joint.places[side]] for side in (0, 1)))
        count += 1
    return count, tuple(total.diff() for total in sums)


def _ordered(side: int, inputs: Sequence[Joint], reals: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A sample, given in the order of `inputs`, as the artifact on `side` takes it."""
    placed = {joint.places[side]: joint.given(side, array) for joint, array in zip(inputs, reals, strict=True)}
    return [placed[place] for place in sorted(placed)]


class _Sum:
    """What is gathered of one output, sample by sample."""

    def __init__(self, joint: Joint) -> None:
        self._joint = joint
        self._worst = self._peak = self._signal = self._noise = 0.0
        self._rows, self._same, self._is_scores = 0, 0, True

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        a, b = self._joint.real(0, first), self._joint.real(1, second)
        if a.shape != b.shape:
            raise UnsupportedError(
                f"output {self._joint.ports[0].name} is {list(a.shape)} in one, {list(b.shape)} in the other"
            )
        with np.errstate(all="ignore"):
            alike = (a == b) | (np.isnan(a) & np.isnan(b))
            error = np.where(alike, 0.0, np.nan_to_num(np.abs(b - a), nan=np.inf, posinf=np.inf))
            size = np.where(np.isfinite(a), np.abs(a), 0.0)
            self._signal += float((size * size).sum())
            self._noise += float((error * error).sum())
        self._worst = max(self._worst, float(error.max(initial=0.0)))
        self._peak = max(self._peak, float(size.max(initial=0.0)))
        self._is_scores = self._is_scores and a.ndim == 2 and a.shape[1] > 1
        if self._is_scores:
            self._rows += len(a)
            self._same += int((a.argmax(-1) == b.argmax(-1)).sum())

    def diff(self) -> OutputDiff:
        one, other = self._joint.ports
        counted = one.is_quantized and other.is_quantized and one.scale == other.scale and one.scale is not None
        steps = round(self._worst / one.scale) if counted and one.scale and np.isfinite(self._worst) else None
        return OutputDiff(
            one.name,
            other.name,
            self._worst,
            self._worst / self._peak if self._peak else self._worst,
            self._sqnr_db(),
            steps,
            self._same / self._rows if self._is_scores and self._rows else None,
        )

    def _sqnr_db(self) -> float:
        if not np.isfinite(self._noise):
            return -_MOST_DB
        return min(10 * log10(max(self._signal, 1e-300) / max(self._noise, 1e-300)), _MOST_DB)
