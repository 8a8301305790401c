"""Every op in plain numpy, written from `graph.ops`: what the torch evaluations are held against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolchain.graph import Node, Op


def windows(node: Node, x: np.ndarray, kernel, dilation=(1, 1), value: float = 0.0) -> np.ndarray:
    """(N, C, H, W) -> (N, C, rows, columns, kernel height, kernel width)."""
    top, left, bottom, right = node["padding"]
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    found = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    return found[:, :, :: node["stride"][0], :: node["stride"][1], :: dilation[0], :: dilation[1]]


def convolve(node: Node, x: np.ndarray, weight: np.ndarray, groups: int) -> np.ndarray:
    """Exact for integer arrays."""
    seen = windows(node, x, weight.shape[2:], node["dilation"])
    parts = zip(np.split(seen, groups, axis=1), np.split(weight, groups), strict=True)
    return np.concatenate([np.einsum("nchwij,fcij->nfhw", s, w) for s, w in parts], axis=1)


def _with_bias(y: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    return y if bias is None else y + bias.reshape(-1, 1, 1)


def _conv2d(node, x, weight, bias=None):
    return _with_bias(convolve(node, x, weight, node["groups"]), bias)


def _depthwise_conv2d(node, x, weight, bias=None):
    return _with_bias(convolve(node, x, weight, x.shape[1]), bias)


def _batch_norm(node, x, weight, bias, mean, variance):
    weight, bias, mean, variance = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (weight, bias, mean, variance))
    return (x - mean) / np.sqrt(variance + node["epsilon"]) * weight + bias


def _softmax(node, x):
    e = np.exp(x - x.max(node["axis"], keepdims=True))
    return e / e.sum(node["axis"], keepdims=True)


def _avg_pool2d(node, x):
    inside = windows(node, np.ones_like(x), node["kernel_size"]).sum((4, 5))
    return windows(node, x, node["kernel_size"]).sum((4, 5)) / inside


def _pad(node, x):
    amounts = node["amounts"]
    return np.pad(x, list(zip(amounts[: x.ndim], amounts[x.ndim :], strict=True)), constant_values=node["value"])


def _slice(node, x):
    index = [slice(None)] * x.ndim
    for axis, *bounds in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
        index[axis] = slice(*bounds)
    return x[tuple(index)]


NUMPY_OPS: dict[Op, Callable[..., np.ndarray]] = {
    Op.CONV2D: _conv2d,
    Op.DEPTHWISE_CONV2D: _depthwise_conv2d,
    Op.LINEAR: lambda node, x, weight, bias=0.0: x @ weight.T + bias,
    Op.BATCH_NORM: _batch_norm,
    Op.RELU: lambda node, x: np.maximum(x, 0),
    Op.RELU6: lambda node, x: np.clip(x, 0, 6),
    Op.LEAKY_RELU: lambda node, x: np.where(x > 0, x, node["slope"] * x),
    Op.SIGMOID: lambda node, x: 1 / (1 + np.exp(-x)),
    Op.TANH: lambda node, x: np.tanh(x),
    Op.HARDSWISH: lambda node, x: x * np.clip(x + 3, 0, 6) / 6,
    Op.SOFTMAX: _softmax,
    Op.ADD: lambda node, left, right: left + right,
    Op.SUB: lambda node, left, right: left - right,
    Op.MUL: lambda node, left, right: left * right,
    Op.MAX_POOL2D: lambda node, x: windows(node, x, node["kernel_size"], value=-np.inf).max((4, 5)),
    Op.AVG_POOL2D: _avg_pool2d,
    Op.MEAN: lambda node, x: x.mean(node["axes"], keepdims=node["keepdim"]),
    Op.RESHAPE: lambda node, x: x.reshape(-1, *node["shape"][1:]),
    Op.PERMUTE: lambda node, x: x.transpose(node["axes"]),
    Op.CONCAT: lambda node, *inputs: np.concatenate(inputs, node["axis"]),
    Op.PAD: _pad,
    Op.SLICE: _slice,
}

ACTIVATIONS = {"none": lambda y: y, "relu": lambda y: np.maximum(y, 0), "relu6": lambda y: np.clip(y, 0, 6)}


def apply(node: Node, *inputs: np.ndarray) -> np.ndarray:
    return ACTIVATIONS[node.attributes.get("activation", "none")](NUMPY_OPS[node.op](node, *inputs))
