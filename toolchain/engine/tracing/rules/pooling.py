"""Pools.

Pools over windows of several sizes or of a dilated shape are said by slices, gathers and joins: an adaptive pool goes
along one axis after the other, in runs of windows of one size; a dilated maximum is that of the places it takes. An
average that counts its padding pads first; what `ceil_mode` adds behind the padding is never counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil
from typing import Any

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.images import along, join, of_images, on_images, take
from toolchain.engine.tracing.rules.rule import Pair, Rule, pair
from toolchain.graph import Op


@dataclass(frozen=True)
class _Axis:
    """Windows along one axis: `count` positions; `after` includes what ceil_mode adds behind the padding."""

    size: int
    kernel: int
    stride: int
    padding: int
    after: int
    count: int
    dilation: int = 1

    @classmethod
    def of(cls, size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> _Axis:
        reach = dilation * (kernel - 1) + 1
        count = (size + 2 * padding - reach) // stride + 1
        if ceil_mode:
            count = ceil((size + 2 * padding - reach) / stride) + 1
            if (count - 1) * stride >= size + padding:
                count -= 1  # the last window may not start in the padding
        after = max(padding, (count - 1) * stride + reach - size - padding)
        return cls(size, kernel, stride, padding, after, count, dilation)

    def places(self, tap: int) -> list[int]:
        """Where each window finds its `tap`; where that lies outside, another of the window's own places."""
        found = []
        for position in range(self.count):
            first = position * self.stride - self.padding
            inside = [p for t in range(self.kernel) if 0 <= (p := first + t * self.dilation) < self.size]
            if not inside:
                raise CannotLower("one of its windows lies outside the image")
            wanted = first + tap * self.dilation
            found.append(wanted if wanted in inside else min(inside, key=lambda p: abs(p - wanted)))
        return found


def _axes(
    b: GraphBuilder, x: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[_Axis, _Axis]:
    kernel, pad, spread = pair(kernel_size), pair(padding), pair(dilation)
    step = pair(stride) if stride else kernel
    size = b.shapes[x][2:]
    height = _Axis.of(size[0], kernel[0], step[0], pad[0], spread[0], ceil_mode)
    return height, _Axis.of(size[1], kernel[1], step[1], pad[1], spread[1], ceil_mode)


def _window(axes: Sequence[_Axis]) -> dict[str, Any]:
    height, width = axes
    return {
        "kernel_size": (height.kernel, width.kernel),
        "stride": (height.stride, width.stride),
        "padding": (height.padding, width.padding, height.after, width.after),
    }


def _max_pool2d(
    b: GraphBuilder,
    x: str,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> str:
    axes = _axes(b, x, kernel_size, stride, padding, dilation, ceil_mode)
    if all(axis.dilation == 1 or axis.kernel == 1 for axis in axes):
        return b.add(Op.MAX_POOL2D, x, **_window(axes))
    for number, axis in enumerate(axes, start=2):
        taps = [take(b, x, number, axis.places(tap)) for tap in range(axis.kernel)]
        x = reduce(lambda left, right: b.add(Op.MAXIMUM, left, right), taps)
    return x


def _avg_pool2d(
    b: GraphBuilder,
    x: str,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> str:
    axes = _axes(b, x, kernel_size, stride, padding, 1, ceil_mode)
    window = _window(axes)
    top, left, bottom, right = window["padding"]
    counted = (bottom, right) if divisor_override else (axes[0].padding, axes[1].padding)
    if count_include_pad or divisor_override:
        if any((top, left, *counted)):
            x = b.add(Op.PAD, x, amounts=(0, 0, top, left, 0, 0, *counted))
        window["padding"] = (0, 0, bottom - counted[0], right - counted[1])
    mean = b.add(Op.AVG_POOL2D, x, **window)
    elements = axes[0].kernel * axes[1].kernel
    if divisor_override in (None, elements):
        return mean
    return b.add(Op.MUL, mean, b.constant(elements / divisor_override))


def _max_pool1d(
    b: GraphBuilder,
    x: str,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> str:
    step, kernel = along(stride or kernel_size, 1), along(kernel_size, 1)
    window = (kernel, step, along(padding, 0), along(dilation, 1), ceil_mode)
    return on_images(b, x, 1, lambda b, image: _max_pool2d(b, image, *window))


def _avg_pool1d(
    b: GraphBuilder,
    x: str,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> str:
    step, kernel = along(stride or kernel_size, 1), along(kernel_size, 1)
    window = (kernel, step, along(padding, 0), ceil_mode, count_include_pad)
    return on_images(b, x, 1, lambda b, image: _avg_pool2d(b, image, *window))


def _adaptive(b: GraphBuilder, x: str, op: Op, wanted: Pair) -> str:
    """Windows from floor(i in / out) to ceil((i + 1) in / out), along both axes at once where they are all alike."""
    runs = [_runs(size, count) for size, count in zip(b.shapes[x][2:], wanted, strict=True)]
    even = [found[0] if len(found) == 1 else None for found in runs]
    if even[0] and even[1]:
        return _pool_runs(b, x, op, (even[0], even[1]))
    for axis, found in enumerate(runs):
        whole = _Run(0, 1, 1, b.shapes[x][3 - axis])
        parts = [_pool_runs(b, x, op, (run, whole) if axis == 0 else (whole, run)) for run in found]
        x = join(b, parts, 2 + axis)
    return x


@dataclass(frozen=True)
class _Run:
    """`count` windows of `kernel` elements in a row, the first from `start` on."""

    start: int
    kernel: int
    stride: int
    count: int

    @property
    def places(self) -> range:
        return range(self.start, self.start + (self.count - 1) * self.stride + self.kernel)


def _runs(size: int, count: int) -> list[_Run]:
    runs: list[_Run] = []
    for position in range(count):
        start, stop = position * size // count, -(-(position + 1) * size // count)
        last = runs[-1] if runs else None
        step = start - last.start - (last.count - 1) * last.stride if last else 0
        if last and last.kernel == stop - start and (last.count == 1 or step == last.stride) and step > 0:
            runs[-1] = _Run(last.start, last.kernel, step, last.count + 1)
        else:
            runs.append(_Run(start, stop - start, 1, 1))
    return runs


def _pool_runs(b: GraphBuilder, x: str, op: Op, runs: tuple[_Run, _Run]) -> str:
    for axis, run in enumerate(runs, start=2):
        x = take(b, x, axis, run.places)
    if all(run.kernel == 1 == run.stride for run in runs):
        return x
    return b.add(op, x, kernel_size=(runs[0].kernel, runs[1].kernel), stride=(runs[0].stride, runs[1].stride))


def _adaptive_avg_pool2d(b: GraphBuilder, x: str, output_size: Any) -> str:
    if pair(output_size) == (1, 1):
        return b.add(Op.MEAN, x, axes=(2, 3), keepdim=True)
    return _adaptive(b, x, Op.AVG_POOL2D, pair(output_size))


def _adaptive_max_pool2d(b: GraphBuilder, x: str, output_size: Any) -> list[str]:
    return [on_images(b, x, 2, lambda b, image: _adaptive(b, image, Op.MAX_POOL2D, pair(output_size)))]


def _adaptive_avg_pool1d(b: GraphBuilder, x: str, output_size: Any) -> str:
    if along(output_size, 1) == (1, 1):
        return b.add(Op.MEAN, x, axes=(len(b.shapes[x]) - 1,), keepdim=True)
    return on_images(b, x, 1, lambda b, image: _adaptive(b, image, Op.AVG_POOL2D, along(output_size, 1)))


def _adaptive_max_pool1d(b: GraphBuilder, x: str, output_size: Any) -> list[str]:
    return [on_images(b, x, 1, lambda b, image: _adaptive(b, image, Op.MAX_POOL2D, along(output_size, 1)))]


POOLING: dict[str, Rule] = {
    "max_pool1d": _max_pool1d,
    "max_pool2d": of_images(_max_pool2d),
    "avg_pool1d": _avg_pool1d,
    "avg_pool2d": of_images(_avg_pool2d),
    "adaptive_avg_pool1d": _adaptive_avg_pool1d,
    "adaptive_avg_pool2d": of_images(_adaptive_avg_pool2d),
    "adaptive_max_pool1d": _adaptive_max_pool1d,
    "adaptive_max_pool2d": _adaptive_max_pool2d,
}
