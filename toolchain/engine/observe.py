"""Calibration in one streaming pass: every activation's statistics while the float graph runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.run import as_tensors, run, to_tensors
from toolchain.graph import Graph
from toolchain.quantization.statistics import BINS, TensorStatistics, channel_axis, extent_for


def observe(
    graph: Graph, batches: Iterable[Sequence[np.ndarray]], *, histograms: bool = False
) -> dict[str, TensorStatistics]:
    """Statistics of every activation over `batches`; `histograms` adds the counts that percentiles need.

    Memory is that of running one batch plus `BINS` counts a tensor, whatever the number of batches.
    """
    found = {name: TensorStatistics() for name in graph.activations}
    constants = as_tensors(graph.constants)

    def hook(name: str, value: Tensor) -> Tensor:
        found[name] = found[name].merged(measure(value, histograms=histograms))
        return value

    with torch.inference_mode():
        for batch in batches:
            run(graph, to_tensors(batch), constants=constants, hook=hook)
    return found


def measure(value: Tensor, *, histograms: bool) -> TensorStatistics:
    """Statistics of one tensor of any rank."""
    low, high = (float(bound) for bound in torch.aminmax(value))
    axis = channel_axis(value.dim()) if value.dim() else 0
    others = [a for a in range(value.dim()) if a != axis]
    means = (value.mean(others) if others else value).double().reshape(-1).numpy()
    elements = value.numel() // max(len(means), 1)
    if not histograms:
        return TensorStatistics(low, high, elements, means=means)
    extent = extent_for(max(abs(low), abs(high)))
    counts = torch.histc(value, BINS, -extent, extent).to(torch.int64).numpy()
    return TensorStatistics(low, high, elements, extent, means, counts)
