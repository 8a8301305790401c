"""The one integer specification both writers read: a folded float graph, the affine parameters of every tensor, and
what is added to biases to make up for rounded weights.

The integers follow from the three: nothing else decides a weight's or a bias's value, `q = quantize(constant +
correction)`. The graph itself keeps its float meaning, so that float files and recovery start from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from toolchain.graph import Graph, Node, subgraph
from toolchain.quantization.affine import AffineParams, quantize


@dataclass(frozen=True)
class QuantizedGraph:
    """`graph` with float32 master weights; `params` for every tensor that is an integer in the file; `corrections`
    (float32, shaped as the constant) for some biases.

    An activation or constant without params stays float. Raises ValueError for params of unknown tensors.
    """

    graph: Graph
    params: Mapping[str, AffineParams]
    corrections: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        object.__setattr__(self, "corrections", MappingProxyType(dict(self.corrections)))
        unknown = (set(self.params) | set(self.corrections)) - set(self.graph.types)
        if unknown:
            raise ValueError(f"params for tensors the graph does not hold: {sorted(unknown)}")

    @cached_property
    def integers(self) -> Mapping[str, np.ndarray]:
        """Integer value of every quantized constant."""
        quantized = [name for name in self.params if name in self.graph.constants]
        return MappingProxyType({name: quantize(self._corrected(name), self.params[name]) for name in quantized})

    def _corrected(self, name: str) -> np.ndarray:
        constant = self.graph.constants[name]
        return constant + self.corrections[name] if name in self.corrections else constant

    def with_constants(self, changed: Mapping[str, np.ndarray]) -> QuantizedGraph:
        return replace(self, graph=self.graph.with_constants(changed))

    def extract(self, nodes: tuple[Node, ...]) -> QuantizedGraph:
        """The given nodes as a quantized graph of their own, to be written and run alone."""
        part = subgraph(self.graph, nodes)
        params = {name: p for name, p in self.params.items() if name in part.types}
        return QuantizedGraph(part, params, {n: c for n, c in self.corrections.items() if n in part.constants})


def clamp_is_implied(params: AffineParams, activation: str) -> bool:
    """Whether saturation to `params`' integers already does what `activation` would."""
    low, high = params.bounds
    if activation == "none":
        return True
    return low >= 0.0 and (activation == "relu" or high <= 6.0 * (1 + 1e-6))


def clamp_integers(params: AffineParams, activation: str) -> tuple[int, int]:
    """The integers between which `activation` holds a tensor of `params`."""
    low, high = params.q_min, params.q_max
    zero = int(params.zero_point.flat[0])
    if activation in ("relu", "relu6"):
        low = max(low, zero)
    if activation == "relu6":
        high = min(high, zero + round(6.0 / float(params.scale.max())))
    return low, high
