"""Channel means without a sample, from batch norms (Nagel et al., Data-Free Quantization, arXiv 1906.04721, section
4.2.1 and appendix C).

In training a batch norm saw its results with mean `bias` and deviation `|weight|` in each channel. Taken as normal,

    E[f(x)] = integral f(bias + |weight| z) phi(z) dz

is the mean of what an activation f makes of them; for a ReLU that is the clipped normal distribution of the paper. The
integral is summed over `_POINTS` points. Sums are taken as independent; averages keep means. What no batch norm
determines, such as the inputs, has no mean here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from toolchain.graph import Graph, Node, Op
from toolchain.quantization.statistics import channel_axis

_POINTS, _REACH = 2001, 8.0


@dataclass(frozen=True)
class Normal:
    """Mean and deviation `(C,)` of a tensor's channels; no deviation where only the mean is known."""

    mean: np.ndarray
    deviation: np.ndarray | None


Known: TypeAlias = Mapping[str, Normal]
Function: TypeAlias = Callable[[np.ndarray, Node], np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    halved: np.ndarray = 0.5 * (1 + np.tanh(0.5 * x))
    return halved


_FUNCTIONS: dict[Op, Function] = {
    Op.RELU: lambda x, node: np.maximum(x, 0),
    Op.RELU6: lambda x, node: np.clip(x, 0, 6),
    Op.CLAMP: lambda x, node: np.clip(x, node["low"], node["high"]),
    Op.LEAKY_RELU: lambda x, node: np.where(x > 0, x, node["slope"] * x),
    Op.HARDSWISH: lambda x, node: x * np.clip(x + 3, 0, 6) / 6,
    Op.SIGMOID: lambda x, node: _sigmoid(x),
    Op.TANH: lambda x, node: np.tanh(x),
}
_MEAN_KEPT = frozenset({Op.AVG_POOL2D, Op.MEAN, Op.RESHAPE})


def batch_norm_means(graph: Graph) -> dict[str, np.ndarray]:
    """E[x] `(C,)`, float64, along `channel_axis`, of every activation that batch norms determine; `graph` is not
    folded, so that the batch norms are there."""
    known: dict[str, Normal] = {}
    for node in graph.nodes:
        found = _normal_of(graph, node, known)
        if found is not None and len(found.mean) == _channels(graph, node.output):
            known[node.output] = found
    return {name: normal.mean for name, normal in known.items()}


def _channels(graph: Graph, name: str) -> int:
    shape = graph.types[name].shape
    return shape[channel_axis(graph, name)] if len(shape) in (2, 4) else -1


def _normal_of(graph: Graph, node: Node, known: Known) -> Normal | None:
    given = [known.get(name) for name in node.inputs]
    if node.op is Op.BATCH_NORM:
        weight, bias = (graph.constants[name].astype(np.float64) for name in node.inputs[1:3])
        return Normal(bias, np.abs(weight))
    first = given[0] if given else None
    if first is None:
        return None
    if node.op in _FUNCTIONS:
        return _passed(_FUNCTIONS[node.op], node, first)
    if node.op is Op.ADD:
        return _sum(first, given[1])
    if node.op in _MEAN_KEPT and _is_average(graph, node):
        return Normal(first.mean, None)
    return None


def _passed(function: Function, node: Node, normal: Normal) -> Normal | None:
    if normal.deviation is None:
        return None
    z = np.linspace(-_REACH, _REACH, _POINTS)
    weights = np.exp(-0.5 * z**2)
    values = function(normal.mean[:, None] + normal.deviation[:, None] * z, node)
    mean = values @ weights / weights.sum()
    square = (values - mean[:, None]) ** 2 @ weights / weights.sum()
    return Normal(mean, np.sqrt(square))


def _sum(one: Normal, other: Normal | None) -> Normal | None:
    if other is None or len(one.mean) != len(other.mean):
        return None
    both = None
    if one.deviation is not None and other.deviation is not None:
        both = np.hypot(one.deviation, other.deviation)
    return Normal(one.mean + other.mean, both)


def _is_average(graph: Graph, node: Node) -> bool:
    """Whether each channel's mean is what it was: averages of whole windows, and reshapes of single pixels."""
    shape = graph.types[node.inputs[0]].shape
    if len(shape) != 4:
        return False
    if node.op is Op.RESHAPE:
        return graph.types[node.output].shape[:2] == shape[:2] and shape[2:] == (1, 1)
    return node.op is not Op.MEAN or set(node["axes"]) == {2, 3}
