"""Every op in plain numpy, written from `graph.ops`: what the torch evaluations are held against."""

from __future__ import annotations

import math
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


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _lstm(x, weight, recurrent, bias, state):
    hidden, cell = state
    into, forget, new, out = np.split(x @ weight.T + hidden @ recurrent.T + bias[0] + bias[1], 4, 1)
    cell = _sigmoid(forget) * cell + _sigmoid(into) * np.tanh(new)
    return _sigmoid(out) * np.tanh(cell), cell


def _gru(x, weight, recurrent, bias, state):
    (hidden,) = state
    given, held = np.split(x @ weight.T + bias[0], 3, 1), np.split(hidden @ recurrent.T + bias[1], 3, 1)
    reset, update = (_sigmoid(given[at] + held[at]) for at in range(2))
    return ((1 - update) * np.tanh(given[2] + reset * held[2]) + update * hidden,)


def _recurrent(step, states):
    """Every step of `step(x, weight, recurrent weight, biases, states) -> states`."""

    def apply(node, x, weight, recurrent, bias, recurrent_bias, *starts):
        steps = range(x.shape[1])
        held = starts or (np.zeros((1, recurrent.shape[1])),) * states
        hidden = {}
        for at in reversed(steps) if node["reverse"] else steps:
            held = step(x[:, at], weight, recurrent, (bias, recurrent_bias), held)
            hidden[at] = held[0]
        gives_cell = node.attributes.get("gives") == "cell"
        return held[1] if gives_cell else np.stack([hidden[at] for at in steps], 1)

    return apply


def _rnn(node, *inputs):
    function = np.tanh if node["nonlinearity"] == "tanh" else (lambda x: np.maximum(x, 0))
    step = lambda x, w, r, b, h: (function(x @ w.T + h[0] @ r.T + b[0] + b[1]),)  # noqa: E731
    return _recurrent(step, 1)(node, *inputs)


def _softmax(node, x):
    e = np.exp(x - x.max(node["axis"], keepdims=True))
    return e / e.sum(node["axis"], keepdims=True)


def _avg_pool2d(node, x):
    inside = windows(node, np.ones_like(x), node["kernel_size"]).sum((4, 5))
    return windows(node, x, node["kernel_size"]).sum((4, 5)) / inside


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _pad(node, x):
    amounts = node["amounts"]
    around = list(zip(amounts[: x.ndim], amounts[x.ndim :], strict=True))
    value = {"constant_values": node["value"]} if node["mode"] == "constant" else {}
    return np.pad(x, around, mode=_PAD_MODES[node["mode"]], **value)


def convolve_transposed(node: Node, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Every input element adds its weights to the result, which is then cut. Exact for integer arrays."""
    (s, t), (d, e), groups = node["stride"], node["dilation"], node["groups"]
    top, left, bottom, right = node["padding"]
    batch, _, height, width = x.shape
    features, _, rows, columns = weight.shape
    full = [(height - 1) * s + d * (rows - 1) + 1, (width - 1) * t + e * (columns - 1) + 1]
    grown = [n + o for n, o in zip(full, node["output_padding"], strict=True)]
    y = np.zeros((batch, features, *grown), np.result_type(x, weight))
    parts = list(zip(np.split(x, groups, axis=1), np.split(weight, groups), strict=True))
    for i in range(rows):
        for j in range(columns):
            seen = np.concatenate([np.einsum("nchw,fc->nfhw", a, w[:, :, i, j]) for a, w in parts], axis=1)
            y[:, :, i * d : i * d + s * height : s, j * e : j * e + t * width : t] += seen
    return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]


def _conv_transpose2d(node, x, weight, bias=None):
    return _with_bias(convolve_transposed(node, x, weight), bias)


def _resize(node, x):
    for axis, wanted in enumerate(node["size"], start=2):
        size, places = x.shape[axis], np.arange(wanted)
        if node["mode"] == "nearest":
            x = x.take(places * size // wanted, axis)
            continue
        if node["align_corners"]:
            places = places * ((size - 1) / max(wanted - 1, 1))
        else:
            places = np.maximum((places + 0.5) * size / wanted - 0.5, 0)
        low = np.floor(places).astype(int)
        share = (places - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, size - 1), axis) * share
    return x


def _depth_to_space(node, x):
    b, (batch, channels, height, width) = node["block"], x.shape
    if node["channels_first"]:
        blocks = x.reshape(batch, channels // b**2, b, b, height, width).transpose(0, 1, 4, 2, 5, 3)
    else:
        blocks = x.reshape(batch, b, b, channels // b**2, height, width).transpose(0, 3, 4, 1, 5, 2)
    return blocks.reshape(batch, channels // b**2, height * b, width * b)


def _space_to_depth(node, x):
    b, (batch, channels, height, width) = node["block"], x.shape
    blocks = x.reshape(batch, channels, height // b, b, width // b, b)
    axes = (0, 1, 3, 5, 2, 4) if node["channels_first"] else (0, 3, 5, 1, 2, 4)
    return blocks.transpose(axes).reshape(batch, channels * b**2, height // b, width // b)


def _slice(node, x):
    index = [slice(None)] * x.ndim
    for axis, *bounds in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
        index[axis] = slice(*bounds)
    return x[tuple(index)]


_erf = np.vectorize(math.erf)


def _gelu(node, x):
    if node["approximate"]:
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + _erf(x / math.sqrt(2)))


def _gather_elements(x, indices, axis):
    result = np.empty(indices.shape, x.dtype)
    for place in np.ndindex(*indices.shape):
        result[place] = x[(*place[:axis], indices[place], *place[axis + 1 :])]
    return result


def _layer_norm(node, x, weight=1.0, bias=0.0):
    axes = node["axes"]
    apart = x - x.mean(axes, keepdims=True)
    return apart / np.sqrt((apart**2).mean(axes, keepdims=True) + node["epsilon"]) * weight + bias


def _rms_norm(node, x, weight=1.0):
    return x / np.sqrt((x**2).mean(node["axes"], keepdims=True) + node["epsilon"]) * weight


def _largest(node, x):
    """Places of the largest along the axis, in order."""
    return np.take(np.argsort(-x, node["axis"], kind="stable"), range(node["count"]), node["axis"])


def _argument(find):
    return lambda node, x: (
        np.expand_dims(find(x, node["axis"]), node["axis"]) if node["keepdim"] else find(x, node["axis"])
    )


NUMPY_OPS: dict[Op, Callable[..., np.ndarray]] = {
    Op.CONV2D: _conv2d,
    Op.DEPTHWISE_CONV2D: _depthwise_conv2d,
    Op.CONV_TRANSPOSE2D: _conv_transpose2d,
    Op.LINEAR: lambda node, x, weight, bias=0.0: x @ weight.T + bias,
    Op.BATCH_NORM: _batch_norm,
    Op.LAYER_NORM: _layer_norm,
    Op.RMS_NORM: _rms_norm,
    Op.MATMUL: lambda node, left, right: left @ right,
    Op.SUM: lambda node, x: x.sum(node["axes"], keepdims=node["keepdim"]),
    Op.REDUCE_MAX: lambda node, x: x.max(node["axes"], keepdims=node["keepdim"]),
    Op.REDUCE_MIN: lambda node, x: x.min(node["axes"], keepdims=node["keepdim"]),
    Op.ARGMAX: _argument(np.argmax),
    Op.ARGMIN: _argument(np.argmin),
    Op.CUMSUM: lambda node, x: np.cumsum(x, node["axis"]),
    Op.TOPK_VALUES: lambda node, x: np.take_along_axis(x, _largest(node, x), node["axis"]),
    Op.TOPK_INDICES: _largest,
    Op.RELU: lambda node, x: np.maximum(x, 0),
    Op.RELU6: lambda node, x: np.clip(x, 0, 6),
    Op.LEAKY_RELU: lambda node, x: np.where(x > 0, x, node["slope"] * x),
    Op.SIGMOID: lambda node, x: 1 / (1 + np.exp(-x)),
    Op.TANH: lambda node, x: np.tanh(x),
    Op.HARDSWISH: lambda node, x: x * np.clip(x + 3, 0, 6) / 6,
    Op.SOFTMAX: _softmax,
    Op.LSTM: _recurrent(_lstm, 2),
    Op.GRU: _recurrent(_gru, 1),
    Op.RNN: _rnn,
    Op.PRELU: lambda node, x, slope: np.where(x >= 0, x, x * slope),
    Op.ELU: lambda node, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    Op.GELU: _gelu,
    Op.SOFTPLUS: lambda node, x: np.logaddexp(x, 0),
    Op.MISH: lambda node, x: x * np.tanh(np.logaddexp(x, 0)),
    Op.CLAMP: lambda node, x: np.clip(x, node["low"], node["high"]),
    Op.LOG_SOFTMAX: lambda node, x: np.log(_softmax(node, x)),
    Op.EXP: lambda node, x: np.exp(x),
    Op.LOG: lambda node, x: np.log(x),
    Op.SQRT: lambda node, x: np.sqrt(x),
    Op.RSQRT: lambda node, x: 1 / np.sqrt(x),
    Op.ABS: lambda node, x: np.abs(x),
    Op.NEG: lambda node, x: -x,
    Op.SIN: lambda node, x: np.sin(x),
    Op.COS: lambda node, x: np.cos(x),
    Op.FLOOR: lambda node, x: np.floor(x),
    Op.CEIL: lambda node, x: np.ceil(x),
    Op.ROUND: lambda node, x: np.rint(x),
    Op.SIGN: lambda node, x: np.sign(x),
    Op.ERF: lambda node, x: _erf(x),
    Op.CAST: lambda node, x: x.astype(node["dtype"]),
    Op.REQUANTIZE: lambda node, x: x,
    Op.DIV: lambda node, left, right: left / right,
    Op.POW: lambda node, left, right: left**right,
    Op.MINIMUM: lambda node, left, right: np.minimum(left, right),
    Op.MAXIMUM: lambda node, left, right: np.maximum(left, right),
    Op.EQUAL: lambda node, left, right: left == right,
    Op.NOT_EQUAL: lambda node, left, right: left != right,
    Op.LESS: lambda node, left, right: left < right,
    Op.LESS_EQUAL: lambda node, left, right: left <= right,
    Op.GREATER: lambda node, left, right: left > right,
    Op.GREATER_EQUAL: lambda node, left, right: left >= right,
    Op.LOGICAL_AND: lambda node, left, right: np.logical_and(left, right),
    Op.LOGICAL_OR: lambda node, left, right: np.logical_or(left, right),
    Op.LOGICAL_NOT: lambda node, x: np.logical_not(x),
    Op.WHERE: lambda node, condition, left, right: np.where(condition, left, right),
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
    Op.RESIZE: _resize,
    Op.DEPTH_TO_SPACE: _depth_to_space,
    Op.SPACE_TO_DEPTH: _space_to_depth,
    Op.SLICE: _slice,
    Op.EXPAND: lambda node, x: np.broadcast_to(x, (len(x), *node["shape"][1:])),
    Op.GATHER: lambda node, x, indices: np.take(x, indices.astype(int), node["axis"]),
    Op.GATHER_ELEMENTS: lambda node, x, indices: _gather_elements(x, indices.astype(int), node["axis"]),
}

ACTIVATIONS = {"none": lambda y: y, "relu": lambda y: np.maximum(y, 0), "relu6": lambda y: np.clip(y, 0, 6)}


def apply(node: Node, *inputs: np.ndarray) -> np.ndarray:
    return ACTIVATIONS[node.attributes.get("activation", "none")](NUMPY_OPS[node.op](node, *inputs))
