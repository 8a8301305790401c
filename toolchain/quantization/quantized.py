"""The one integer specification both writers read: a folded float graph and the affine parameters of every tensor.

The integers follow from the two: nothing else decides a weight's or a bias's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from toolchain.graph import Graph, Node, subgraph
from toolchain.quantization.affine import AffineParams, quantize


@dataclass(frozen=True)
class QuantizedGraph:
    """`graph` with float32 master weights; `params` for every tensor that is an integer in the file.

    An activation or constant without params stays float. Raises ValueError for params of unknown tensors.
    """

    graph: Graph
    params: Mapping[str, AffineParams]

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        unknown = set(self.params) - set(self.graph.types)
        if unknown:
            raise ValueError(f"params for tensors the graph does not hold: {sorted(unknown)}")

    @cached_property
    def integers(self) -> Mapping[str, np.ndarray]:
        """Integer value of every quantized constant."""
        constants = self.graph.constants
        return MappingProxyType({n: quantize(constants[n], p) for n, p in self.params.items() if n in constants})

    def with_constants(self, changed: Mapping[str, np.ndarray]) -> QuantizedGraph:
        return replace(self, graph=self.graph.with_constants(changed))

    def extract(self, nodes: tuple[Node, ...]) -> QuantizedGraph:
        """The given nodes as a quantized graph of their own, to be written and run alone."""
        part = subgraph(self.graph, nodes)
        return QuantizedGraph(part, {name: p for name, p in self.params.items() if name in part.types})


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
