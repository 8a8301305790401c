"""What has been learned so far: integers of weights, their parameters and bias corrections; and the model they make.

Integers are kept as `corrections[weight] = scale q - w`, in float32, so that `quantize(w + correction)` gives q again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from toolchain.graph import WEIGHTED, Graph, Node, Structure
from toolchain.quantization import AffineParams, QuantizedGraph, dequantize, quantize
from toolchain.quantization.affine import bias_params


@dataclass(frozen=True)
class RoundedWeight:
    """A weight whose integers can be learned, and the nodes that read it, in order."""

    name: str
    readers: tuple[Node, ...]
    kept: np.ndarray | None

    @property
    def is_shared(self) -> bool:
        return len(self.readers) > 1


def rounded_weights(model: QuantizedGraph, structure: Structure) -> dict[str, RoundedWeight]:
    """Weights with parameters, by name, in the order they are first read; those with a codebook, and those read in
    more than one way, are left as they are."""
    readers: dict[str, list[Node]] = {}
    for node in model.graph.nodes:
        if node.op in WEIGHTED and model.graph.is_constant(node.inputs[1]) and node.inputs[1] in model.params:
            readers.setdefault(node.inputs[1], []).append(node)
    return {
        name: RoundedWeight(name, tuple(nodes), structure.masks.get(name))
        for name, nodes in readers.items()
        if name not in structure.codebooks and _is_alone(model.graph, name, nodes)
    }


def _is_alone(graph: Graph, name: str, nodes: list[Node]) -> bool:
    """Whether nothing but these nodes reads the weight, all as the same kind of layer and none as its input."""
    kinds = {(node.op, node.attributes.get("groups")) for node in nodes}
    as_weight = all(node.inputs.count(name) == 1 for node in nodes)
    return len(kinds) == 1 and as_weight and len(graph.consumers[name]) == len(nodes)


@dataclass(frozen=True)
class Change:
    """New integers of one weight, its new parameters, and corrections (C_out,) of its readers' biases by name."""

    weight: str
    integers: np.ndarray
    params: AffineParams
    biases: Mapping[str, np.ndarray] = field(default_factory=dict)


def with_changes(model: QuantizedGraph, changes: Mapping[str, Change]) -> QuantizedGraph:
    """`model` with the learned integers, which `quantize` gives back exactly."""
    params, corrections = dict(model.params), dict(model.corrections)
    for change in changes.values():
        params[change.weight] = change.params
        corrections[change.weight] = correction_for(
            model.graph.constants[change.weight], change.integers, change.params
        )
        corrections |= {name: array.astype(np.float32) for name, array in change.biases.items()}
    for node in model.graph.nodes:
        if node.op in WEIGHTED and len(node.inputs) == 3 and node.inputs[1] in changes and node.inputs[2] in params:
            params[node.inputs[2]] = bias_params(params[node.inputs[0]], params[node.inputs[1]])
    return replace(model, params=params, corrections=corrections)


def correction_for(weight: np.ndarray, integers: np.ndarray, params: AffineParams) -> np.ndarray:
    """float32 c of the weight's shape with `quantize(weight + c, params) == integers`.

    The sum is rounded to float32: where the weight is so large beside its scale that a step is lost in it, c moves
    by as little as brings the integer back. Raises ValueError where nothing does.
    """
    correction: np.ndarray = (dequantize(integers, params).astype(np.float64) - weight).astype(np.float32)
    for ulps in (1, 2, 4, 8):
        off = integers.astype(np.int64) - quantize(weight + correction, params)
        if not off.any():
            return correction
        towards = np.where(off > 0, np.float32(np.inf), np.float32(-np.inf)).astype(np.float32)
        step = ulps * np.abs(np.spacing(np.maximum(np.abs(weight), np.abs(correction)))) * np.sign(towards)
        correction = np.where(off != 0, correction + step, correction).astype(np.float32)
    raise ValueError("no float32 correction gives these integers: the weights are far outside their scale")
