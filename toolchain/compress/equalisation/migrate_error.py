"""The error of linear layers with both operands rounded, on sampled rows: what migration chooses alpha by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from toolchain.engine.run import activations, runnable_batches
from toolchain.graph import Graph, Op
from toolchain.quantization import Granularity, Scheme, asymmetric_params, dequantize, quantize
from toolchain.quantization.affine import largest_integer

_ROWS = 512  # of each activation: enough for the mean of a squared error


def sample_rows(graph: Graph, batches: Iterable[Sequence[np.ndarray]], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows `(n, C)` of activations, evenly from each batch, at most `_ROWS` of each."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in runnable_batches(graph, batches):
        values = activations(graph, batch)
        for name in names:
            rows = values[name].reshape(-1, values[name].shape[-1]).astype(np.float64)
            found[name].append(rows[:: max(len(rows) // _ROWS, 1)])
    joined = {name: np.concatenate(parts) for name, parts in found.items() if parts}
    return {name: rows[:: -(-len(rows) // _ROWS)] for name, rows in joined.items()}


def rounded_error(rows: np.ndarray, weights: Sequence[np.ndarray], factors: np.ndarray, scheme: Scheme) -> float:
    """Squared error over squared result of `rows (n, C)` times each weight `(O, C)`, with channels scaled by `factors
    (C,)` and both rounded."""
    error = signal = 0.0
    scaled = _rounded_activation(rows * factors, scheme)
    for weight in weights:
        truth = rows @ weight.T
        error += float(((scaled @ _rounded_weight(weight / factors, scheme).T - truth) ** 2).sum())
        signal += float((truth**2).sum())
    return error / signal if signal > 0 else 0.0


def _rounded_activation(rows: np.ndarray, scheme: Scheme) -> np.ndarray:
    if scheme.activation_dtype is None:
        return rows
    params = asymmetric_params(float(rows.min()), float(rows.max()), scheme.activation_dtype)
    return dequantize(quantize(rows, params), params).astype(np.float64)


def _rounded_weight(weight: np.ndarray, scheme: Scheme) -> np.ndarray:
    if scheme.weight_dtype is None:
        return weight
    per_channel = scheme.granularity(Op.LINEAR) is Granularity.PER_CHANNEL
    bound = np.abs(weight).max(axis=1 if per_channel else None, keepdims=True)
    step = np.maximum(bound, 1e-30) / largest_integer(scheme.weight_dtype, scheme.weight_bits)
    return np.asarray(np.round(weight / step) * step)
