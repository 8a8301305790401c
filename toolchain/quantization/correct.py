"""Bias correction: what rounding the weights shifts on average is taken out of the integer biases.

Rounding changes a layer's result by `(W_q - W) x`, whose mean over the samples is `(W_q - W) E[x]`; the corrected bias
is `b - (W_q - W) E[x]` (Nagel et al., Data-Free Quantization, arXiv 1906.04721, section 4.2, with E[x] measured per
channel in the calibration pass instead of derived from batch-norm statistics). Costs no further pass over the samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np

from toolchain.graph import WEIGHTED, Graph, Node, Op
from toolchain.quantization.affine import dequantize
from toolchain.quantization.quantized import QuantizedGraph
from toolchain.quantization.statistics import channel_axis


def correct_biases(model: QuantizedGraph, means: Mapping[str, np.ndarray]) -> QuantizedGraph:
    """`model` with corrections; `means` holds E[x] `(C,)` of each activation. Layers without a bias get none."""
    corrections = {}
    for node in model.graph.nodes:
        is_rounded = node.op in WEIGHTED and node.inputs[1] in model.params
        if is_rounded and len(node.inputs) == 3 and _measured(model.graph, node, means):
            corrections[node.inputs[2]] = -_mean_shift(model, node, means[node.inputs[0]]).astype(np.float32)
    return replace(model, corrections=corrections)


def _measured(graph: Graph, node: Node, means: Mapping[str, np.ndarray]) -> bool:
    """Whether the means of what `node` reads lie along the axis it sums over."""
    source = node.inputs[0]
    axis = graph.types[source].rank - 1 if node.op is Op.LINEAR else 1
    return source in means and channel_axis(graph, source) == axis


def _mean_shift(model: QuantizedGraph, node: Node, mean: np.ndarray) -> np.ndarray:
    """Mean of `(W_q - W) x` per output channel `(C_out,)`."""
    name = node.inputs[1]
    rounded = dequantize(model.integers[name], model.params[name])
    error = (rounded.astype(np.float64) - model.graph.constants[name]).reshape(*rounded.shape[:2], -1).sum(-1)
    if node.op is Op.DEPTHWISE_CONV2D:
        shift: np.ndarray = error[:, 0] * np.repeat(mean, len(error) // len(mean))
        return shift
    parts = zip(*(np.split(array, _groups(node)) for array in (error, mean)), strict=True)
    shift = np.concatenate([part @ channels for part, channels in parts])
    if node.op is Op.CONV_TRANSPOSE2D:
        # every input meets each weight once, and so adds to one of many results
        source, result = (prod(model.graph.types[name].shape[2:]) for name in (node.inputs[0], node.output))
        shift *= source / result
    return shift


def _groups(node: Node) -> int:
    groups: int = node["groups"] if "groups" in node.attributes else 1
    return groups
