"""The one integer specification both writers read: a folded float graph, the affine parameters of every tensor, and
what is added to biases to make up for rounded weights.

The integers follow from the three: nothing else decides a weight's or a bias's value, `q = quantize(constant +
correction)`. The graph itself keeps its float meaning, so that float files and recovery start from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.graph import DType, Graph, Node, subgraph
from toolchain.quantization.affine import AffineParams, dequantize, half, quantize
from toolchain.quantization.scheme import Reals


@dataclass(frozen=True)
class QuantizedGraph:
    """`graph` with float32 master weights; `params` for every tensor that is an integer in the file; `corrections`
    (float32, shaped as the constant) for some biases.

    An activation or constant without params stays as it is. `float_nodes` maps the output of each node that computes in
    float inside an integer graph to the reason: what it reads is dequantized, and its result quantized where it has
    params. `reals` is how reals without params are stored. Raises ValueError for params of unknown tensors.
    """

    graph: Graph
    params: Mapping[str, AffineParams]
    corrections: Mapping[str, np.ndarray] = field(default_factory=dict)
    float_nodes: Mapping[str, str] = field(default_factory=dict)
    reals: Reals = Reals.FLOAT32

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        object.__setattr__(self, "corrections", MappingProxyType(dict(self.corrections)))
        object.__setattr__(self, "float_nodes", MappingProxyType(dict(self.float_nodes)))
        unknown = {*self.params, *self.corrections, *self.float_nodes} - set(self.graph.types)
        if unknown:
            raise ValueError(f"params for tensors the graph does not hold: {sorted(unknown)}")

    @cached_property
    def integers(self) -> Mapping[str, np.ndarray]:
        """Integer value of every quantized constant."""
        quantized = [name for name in self.params if name in self.graph.constants]
        return MappingProxyType({name: quantize(self._corrected(name), self.params[name]) for name in quantized})

    @property
    def is_float(self) -> bool:
        """Whether the file is to hold the float graph as it is."""
        return not self.params and self.reals is Reals.FLOAT32

    @property
    def has_integer_activations(self) -> bool:
        """Whether kernels compute on integers, so that results can be judged in steps."""
        return any(not self.graph.is_constant(name) for name in self.params)

    def stored_dtype(self, name: str) -> DType:
        """Element type in a file of the constant `name`."""
        if name in self.params:
            return self.params[name].dtype
        dtype = self.graph.types[name].dtype
        return DType.FLOAT16 if dtype is DType.FLOAT32 and self.reals is not Reals.FLOAT32 else dtype

    def stored_values(self, name: str) -> np.ndarray:
        """What a file holds for the constant `name`. Raises UnsupportedError for what float16 cannot hold."""
        if name in self.params:
            return self.integers[name]
        values = self._corrected(name)
        if self.stored_dtype(name) is not DType.FLOAT16 or values.dtype == np.float16:
            return values
        try:
            return half(values)
        except ValueError as error:
            raise UnsupportedError(f"{name}: {error}", hint="keep the model in float32, or scale it") from error

    def _corrected(self, name: str) -> np.ndarray:
        constant = self.graph.constants[name]
        return constant + self.corrections[name] if name in self.corrections else constant

    def with_constants(self, changed: Mapping[str, np.ndarray]) -> QuantizedGraph:
        return replace(self, graph=self.graph.with_constants(changed))

    def extract(self, nodes: tuple[Node, ...]) -> QuantizedGraph:
        """The given nodes as a quantized graph of their own, to be written and run alone."""
        part = subgraph(self.graph, nodes)
        params = {name: p for name, p in self.params.items() if name in part.types}
        corrections = {name: c for name, c in self.corrections.items() if name in part.constants}
        float_nodes = {name: why for name, why in self.float_nodes.items() if name in part.types}
        return QuantizedGraph(part, params, corrections, float_nodes, self.reals)


def quantize_inputs(model: QuantizedGraph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Float inputs as the integers the specification asks for."""
    pairs = zip(model.graph.input_names, inputs, strict=True)
    return [quantize(array, model.params[name]) if name in model.params else array for name, array in pairs]


def dequantize_outputs(model: QuantizedGraph, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Float values of outputs as a runtime gave them, integers or floats already."""
    params = [model.params.get(name) for name in model.graph.outputs]
    pairs = zip(outputs, params, strict=True)
    return [out if p is None or out.dtype.kind == "f" else dequantize(out, p) for out, p in pairs]


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
