"""Small networks in which one cause of error is planted, and how they are quantized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.engine.observe import observe
from toolchain.graph import Graph, parse_graph
from toolchain.quantization import QuantizedGraph, Scheme, TensorStatistics, assign_params

CHAIN = """
input x: float32[1,4,16,16]
constant stem.b: float32[16]
constant mid.b: float32[16]
stem = conv2d(x, stem.w, stem.b) activation=relu
mid = conv2d(stem, mid.w, mid.b) activation=relu
head = conv2d(mid, head.w)
y = mean(head) axes=(2,3)
output y
"""

JOIN = """
input x: float32[1,4,16,16]
small = conv2d(x, small.w)
large = conv2d(x, large.w)
both = concat(small, large) axis=1
head = conv2d(both, head.w)
output head
"""


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    """He-normal."""
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def chain(scales: np.ndarray | float = 1.0, text: str = CHAIN, **changed: np.ndarray) -> Graph:
    """Three convolutions; the channels between the second and third are scaled apart, and back, by `scales (16,)`."""
    factors = np.broadcast_to(np.asarray(scales, np.float32), 16)
    constants = {
        "stem.w": weight(16, 4, 1, 1),
        "mid.w": weight(16, 16, 1, 1, seed=1) * factors.reshape(-1, 1, 1, 1),
        "mid.b": np.zeros(16, np.float32),
        "head.w": weight(8, 16, 1, 1, seed=2) / factors.reshape(1, -1, 1, 1),
    }
    return parse_graph(text, constants | changed)


def join(ratio: float) -> Graph:
    """Two branches, one `ratio` times as large as the other, joined and brought back to the same size."""
    back = np.repeat([1.0, 1 / ratio], 8).reshape(1, -1, 1, 1)
    constants = {
        "small.w": weight(8, 4, 1, 1),
        "large.w": weight(8, 4, 1, 1, seed=1) * ratio,
        "head.w": weight(8, 16, 1, 1, seed=2) * back,
    }
    return parse_graph(JOIN, {name: array.astype(np.float32) for name, array in constants.items()})


def images(count: int = 8, seed: int = 5) -> np.ndarray:
    """(count, 4, 16, 16), standard normal."""
    return np.random.default_rng(seed).standard_normal((count, 4, 16, 16)).astype(np.float32)


def statistics_of(graph: Graph, array: np.ndarray) -> dict[str, TensorStatistics]:
    return observe(graph, [(array,)], histograms=True)


def quantized(
    graph: Graph,
    array: np.ndarray,
    scheme: Scheme | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    **options: Any,
) -> QuantizedGraph:
    """Min-max ranges of `array`, but for those given."""
    found = {name: s.minmax() for name, s in statistics_of(graph, array).items()}
    return assign_params(graph, found | dict(ranges or {}), scheme or Scheme(), **options)
