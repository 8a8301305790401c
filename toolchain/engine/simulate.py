"""The exact integer meaning of a quantized graph: integers in, integers out, node by node.

Each node computes in float64 on the dequantized integers and rounds once. Products and sums of int8 values and int32
biases are exact in float64 up to 2^53 steps, so the result is that of integer accumulation followed by one exact
requantization: what every kernel approximates to within a step. An average, whose scale is that of what it averages, is
taken of the integers: its ties are common, and a scale would break them at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.evaluate import evaluate
from toolchain.graph import Node
from toolchain.quantization import QUANTIZATION_RULES, AffineParams, Kind, QuantizedGraph, clamp_integers


class Simulator:
    """Runs `model` node by node. Constants are dequantized once."""

    def __init__(self, model: QuantizedGraph) -> None:
        self.model = model
        self._constants = {name: _real(model.integers[name], model.params[name]) for name in model.integers}
        for name, array in model.graph.constants.items():
            if name not in self._constants:
                stored = model.stored_values(name) if array.dtype.kind == "f" else array
                self._constants[name] = _exact(stored)

    def node(self, node: Node, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Result of `node` for the integers (floats where a tensor has no params) of its activations by name."""
        rule = QUANTIZATION_RULES[node.op]
        in_steps = rule.kind is Kind.SHARED and rule.rounds and node.output in self.model.params
        in_steps = in_steps and node.output not in self.model.float_nodes
        constants = self._constants
        given = [constants[n] if n in constants else self._value(n, inputs[n], in_steps) for n in node.inputs]
        with torch.inference_mode():
            result = evaluate(node, given)
            params = self.model.params.get(node.output)
            if params is None:
                return (result.float() if result.is_floating_point() else result).numpy()
            scale, zero = 1.0 if in_steps else float(params.scale.max()), int(params.zero_point.flat[0])
            low, high = clamp_integers(params, str(node.attributes.get("activation", "none")))
            q = torch.clamp(torch.round(result / scale) + zero, low, high)
        return q.numpy().astype(params.dtype.numpy)

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Every activation by name, for integer `inputs`."""
        graph = self.model.graph
        values = dict(zip(graph.input_names, inputs, strict=True))
        for node in graph.nodes:
            values[node.output] = self.node(node, values)
        return values

    def _value(self, name: str, array: np.ndarray, in_steps: bool) -> Tensor:
        params = self.model.params.get(name)
        if params is None:
            return _exact(array)
        return _real(array, replace(params, scale=np.ones_like(params.scale)) if in_steps else params)


def simulate(model: QuantizedGraph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of `model` in order."""
    values = Simulator(model).run(inputs)
    return [values[name] for name in model.graph.outputs]


def _exact(array: np.ndarray) -> Tensor:
    """Reals in float64, anything else as it is."""
    return torch.from_numpy(np.array(array, np.float64 if array.dtype.kind == "f" else array.dtype))


def _real(q: np.ndarray, params: AffineParams) -> Tensor:
    scale = params.broadcast(params.scale, q.ndim).astype(np.float64)
    zero = params.broadcast(params.zero_point, q.ndim)
    return torch.from_numpy(np.asarray((q.astype(np.int64) - zero) * scale))
