"""Channel ranges of a graph's activations, for tests that start where calibration ends."""

from collections.abc import Sequence

import numpy as np

from toolchain.engine.observe import observe
from toolchain.engine.run import predict
from toolchain.graph import Graph


def channel_ranges(graph: Graph, *batches: Sequence[np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        name: (found.channel_min, found.channel_max)
        for name, found in observe(graph, batches).items()
        if found.channel_min is not None and found.channel_max is not None
    }


def difference(before: Graph, after: Graph, *batch: np.ndarray) -> float:
    """Largest difference of the outputs over their largest magnitude."""
    old, new = (predict(graph, [batch]) for graph in (before, after))
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in zip(old, new, strict=True))
