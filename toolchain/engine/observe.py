"""Calibration in one streaming pass: every activation's statistics while the float graph runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.run import as_tensors, run, runnable_batches, to_tensors
from toolchain.engine.threads import one_thread
from toolchain.errors import UnsupportedError
from toolchain.graph import Graph, unsupported
from toolchain.quantization.statistics import BINS, TensorStatistics, channel_axis, extent_for


def observe(
    graph: Graph, batches: Iterable[Sequence[np.ndarray]], *, histograms: bool = False
) -> dict[str, TensorStatistics]:
    """Statistics of every real activation over `batches`; `histograms` adds the counts that percentiles need.

    Memory is that of running one batch plus `BINS` counts a tensor, whatever the number of batches. Raises
    UnsupportedError naming the first tensor that becomes NaN or infinite.
    """
    found = {name: TensorStatistics() for name in graph.activations if graph.is_real(name)}
    axes = {name: channel_axis(graph, name) for name in found}
    constants = as_tensors(graph.constants)

    def hook(name: str, value: Tensor) -> Tensor:
        if name not in found:
            return value
        try:
            found[name] = found[name].merged(measure(value, axes[name], histograms=histograms))
        except ValueError as error:
            raise _not_finite(graph, name) from error
        return value

    with torch.inference_mode(), one_thread():
        for batch in runnable_batches(graph, batches):
            run(graph, to_tensors(batch), constants=constants, hook=hook)
    return found


def _not_finite(graph: Graph, name: str) -> UnsupportedError:
    node = graph.producers.get(name)
    if node is None:
        return UnsupportedError(f"input {name} holds NaN or infinity", hint="mend the samples")
    return unsupported(node, "becomes NaN or infinite on the calibration samples", "look at the layers before it")


def measure(value: Tensor, axis: int, *, histograms: bool) -> TensorStatistics:
    """Statistics of one tensor of any rank, its channels along `axis`. Raises ValueError for NaN and infinity."""
    low, high = (float(bound) for bound in torch.aminmax(value))
    if not isfinite(low) or not isfinite(high):
        raise ValueError("the tensor holds NaN or infinity")
    others = [a for a in range(value.dim()) if a != axis]
    means = (value.mean(others) if others else value).double().reshape(-1).numpy()
    elements = value.numel() // max(len(means), 1)
    if not histograms:
        return TensorStatistics(low, high, elements, means=means)
    extent = extent_for(max(abs(low), abs(high)))
    return TensorStatistics(low, high, elements, extent, means, _count(value, extent))


def _count(value: Tensor, extent: float) -> np.ndarray:
    """Histogram over `[-extent, extent]`. torch counts in the tensor's own float32, exact up to 2^24."""
    counts = np.zeros(BINS, np.int64)
    for part in torch.split(value.reshape(-1), 1 << 24):
        counts += torch.histc(part, BINS, -extent, extent).to(torch.int64).numpy()
    return counts
