"""Other scales for a specification that is there: those that training has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from toolchain.graph import WEIGHTED, Graph
from toolchain.quantization.affine import AffineParams, bias_params

_BIAS_LIMIT = 2.0**30  # half of int32: the other half is for the products a bias is added to


def rescale(
    graph: Graph, params: Mapping[str, AffineParams], scales: Mapping[str, np.ndarray]
) -> dict[str, AffineParams]:
    """`params` with the given scales, () or (C,) as they were; biases follow at s_in * s_w.

    A weight's scale is raised where the integers of its bias would not fit otherwise.
    """
    made = dict(params) | {name: replace(params[name], scale=scale) for name, scale in scales.items()}
    layers = [node for node in graph.nodes if node.op in WEIGHTED and node.inputs[1] in made]
    biased = [(node, name) for node in layers for name in node.inputs[2:] if name in params]
    for node, name in biased:
        source, weight = made[node.inputs[0]], made[node.inputs[1]]
        needed = np.abs(graph.constants[name].astype(np.float64)) / (source.step * _BIAS_LIMIT)
        needed = needed if weight.axis is not None else needed.max()
        made[node.inputs[1]] = replace(weight, scale=np.maximum(weight.scale, needed.astype(np.float32)))
    return made | {name: bias_params(made[node.inputs[0]], made[node.inputs[1]]) for node, name in biased}
