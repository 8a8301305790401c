"""Calibration in one streaming pass: every activation's statistics while the float graph runs.

Extremes and means are of all values, from one reduction a channel each. Counting costs far more a value, so the
histogram takes every k-th value of the stream of all values of the tensor, batch after batch in memory order, k chosen
for about `COUNTED` values a sample and without a common divisor with the tensor's size. The sample that a value belongs
to then decides whether it is counted, not its place: over k samples every place is counted once, so that no channel,
row or column is favoured and the expected share of each bin is its true one. A rare value may be missed, which is why
the extremes are kept apart and exactly.

A batch is run in parts whose largest tensor has `PART_BYTES` at most. They stay in the cache, and malloc hands their
memory out again where it would map larger blocks anew, page by page, each time: EfficientNet-Lite0 runs twice as fast
by 4 as by 32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import gcd, isfinite, prod

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.run import as_tensors, run, runnable_batches, to_tensors
from toolchain.engine.threads import one_thread
from toolchain.errors import UnsupportedError
from toolchain.graph import Graph, mixes_samples, unsupported
from toolchain.quantization.statistics import BINS, TensorStatistics, channel_axis, extent_for

COUNTED = 2048
"""Values a sample that a histogram counts; of a smaller tensor all. 100 samples resolve tails of 1 in 200,000."""

PART_BYTES = 24 << 20

_AT_ONCE = 1 << 20
_SHORT = 128


def observe(
    graph: Graph, batches: Iterable[Sequence[np.ndarray]], *, histograms: bool = False
) -> dict[str, TensorStatistics]:
    """Statistics of every real activation over `batches`; `histograms` adds the counts that percentiles need.

    Memory is that of running one batch plus `BINS` counts a tensor, whatever the number of batches. Raises
    UnsupportedError naming the first tensor that becomes NaN or infinite.
    """
    found = {name: TensorStatistics() for name in graph.activations if graph.is_real(name)}
    axes = {name: channel_axis(graph, name) for name in found}
    every = {name: counted_every(graph.types[name].elements) if histograms else 0 for name in found}
    ends: dict[str, tuple[float, float]] = {}

    def hook(name: str, value: Tensor) -> Tensor:
        if name in found:
            try:
                part = measure(value, axes[name], every=every[name], seen=found[name].values)
            except ValueError as error:
                raise _not_finite(graph, name) from error
            found[name] = found[name].merged(part)
            low, high = ends.get(name, part.minmax())
            ends[name] = min(low, part.minimum), max(high, part.maximum)
        return value

    constants = as_tensors(graph.constants)
    with torch.inference_mode(), one_thread():
        for parts in batches_in_parts(graph, batches):
            for part in parts:
                run(graph, to_tensors(part), constants=constants, hook=hook)
            found |= {name: found[name].after_batch(*bounds) for name, bounds in ends.items()}
            ends.clear()
    return found


def batches_in_parts(graph: Graph, batches: Iterable[Sequence[np.ndarray]]) -> Iterator[Iterator[Sequence[np.ndarray]]]:
    """Each batch as parts that the graph can run: samples apart where it treats them so and its tensors are large."""
    rows = {value.type.shape[:1] for value in graph.inputs}
    may_cut = mixes_samples(graph) is None and len(rows) == 1 and () not in rows
    largest = max(4 * graph.types[name].elements for name in graph.activations)
    size = max(PART_BYTES * next(iter(rows))[0] // max(largest, 1), 1) if may_cut else 0
    for batch in runnable_batches(graph, batches):
        starts = range(0, len(batch[0]), size) if may_cut else ()
        yield (tuple(array[at : at + size] for array in batch) for at in starts) if may_cut else iter([batch])


def counted_every(elements: int) -> int:
    """The k of a tensor that has `elements` values a sample: its histogram counts every k-th value."""
    every = max(elements // COUNTED, 1)
    while gcd(every, elements) > 1:
        every += 1
    return every


def _not_finite(graph: Graph, name: str) -> UnsupportedError:
    node = graph.producers.get(name)
    if node is None:
        return UnsupportedError(f"input {name} holds NaN or infinity", hint="mend the samples")
    return unsupported(node, "becomes NaN or infinite on the calibration samples", "look at the layers before it")


def measure(value: Tensor, axis: int, *, every: int = 0, seen: int = 0) -> TensorStatistics:
    """Statistics of one tensor of any rank, its channels along `axis`.

    With `every` its histogram counts each `every`-th value, on from the `seen` values of earlier batches. Raises
    ValueError for NaN and infinity.
    """
    shape = value.shape
    grouped = value.reshape(prod(shape[:axis]), shape[axis] if shape else 1, prod(shape[axis + 1 :]))
    total = _channel_sums(grouped)
    lowest, highest = (_channel_bounds(grouped, reduce) for reduce in (torch.amin, torch.amax))
    low, high = float(lowest.min()), float(highest.max())
    if not isfinite(low) or not isfinite(high):
        raise ValueError("the tensor holds NaN or infinity")
    elements = value.numel() // len(total)
    extent = extent_for(max(abs(low), abs(high))) if every else 0.0
    counts = _count(grouped.reshape(-1)[-seen % every :: every], extent) if every else None
    return TensorStatistics(low, high, elements, extent, total / elements, counts, lowest, highest)


def _channel_bounds(grouped: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> np.ndarray:
    """Minimum or maximum a channel of a tensor `(rows, C, places)`, float32."""
    rows, _, places = grouped.shape
    # a short inner loop costs torch more than its values do
    first, second = (0, 1) if rows > 1 and places < _SHORT else (2, 0)
    bounds: np.ndarray = reduce(reduce(grouped, first), second).numpy()
    return bounds


def _channel_sums(grouped: Tensor) -> np.ndarray:
    """Sum a channel of a tensor `(rows, C, places)`, float64."""
    if grouped.shape[2] == 1:
        return grouped.squeeze(2).sum(0).double().numpy()
    sums: np.ndarray = grouped.sum(2).numpy().sum(0, dtype=np.float64)
    return sums


def _count(values: Tensor, extent: float) -> np.ndarray:
    """Histogram over `[-extent, extent]`. Powers of two divide exactly: a value on a bin's edge is in the bin above."""
    counts = np.zeros(BINS, np.int64)
    for part in torch.split(values, _AT_ONCE):
        places = (part.double() * (BINS / 2 / extent)).floor_().to(torch.int32).add_(BINS // 2).clamp_(max=BINS - 1)
        counts += torch.bincount(places, minlength=BINS).numpy()
    return counts
