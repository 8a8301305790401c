"""How each ATen op of an exported program is said in the graph's words: one table, `ATEN_RULES`.

A rule takes the builder and the op's arguments, tensors given as names, and returns the name of its result (a list of
names for ops with several results). It raises CannotLower where the arguments ask for what the graph cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, TypeAlias

import numpy as np

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.graph import Op

Rule: TypeAlias = Callable[..., str | list[str]]
Pair: TypeAlias = tuple[int, int]


def _pair(value: int | Sequence[int]) -> Pair:
    values = [value] if isinstance(value, int) else list(value)
    return (int(values[0]), int(values[-1]))


def _axis(axis: int, rank: int) -> int:
    return axis % rank if rank else 0


def _both_sides(padding: Pair) -> tuple[int, int, int, int]:
    return (padding[0], padding[1], padding[0], padding[1])


# ---- layers with weights -------------------------------------------------------------------------------------------


def _conv2d(
    b: GraphBuilder,
    x: str,
    weight: str,
    bias: str | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> str:
    if len(b.shapes[x]) != 4:
        raise CannotLower("a convolution takes a batch of images, (N, C, H, W)")
    dilation = _pair(dilation)
    window = {"stride": _pair(stride), "dilation": dilation, "padding": _padding(b, weight, padding, dilation)}
    inputs = (x, weight) if bias is None else (x, weight, bias)
    channels, fan_in = b.shapes[x][1], b.shapes[weight][1]
    if groups == channels and groups > 1 and fan_in == 1:
        return b.add(Op.DEPTHWISE_CONV2D, *inputs, **window)
    return b.add(Op.CONV2D, *inputs, groups=groups, **window)


def _padding(b: GraphBuilder, weight: str, padding: Any, dilation: Pair) -> tuple[int, int, int, int]:
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, b.shapes[weight][2:], strict=True)]
        before = [total // 2 for total in totals]
        return (before[0], before[1], totals[0] - before[0], totals[1] - before[1])
    return _both_sides(_pair(padding))


def _linear(b: GraphBuilder, x: str, weight: str, bias: str | None = None) -> str:
    return b.add(Op.LINEAR, *((x, weight) if bias is None else (x, weight, bias)))


def _batch_norm(
    b: GraphBuilder,
    x: str,
    weight: str | None,
    bias: str | None,
    mean: str | None,
    variance: str | None,
    training: bool,
    momentum: float,
    epsilon: float,
    *_: Any,
) -> str:
    if mean is None or variance is None:
        raise CannotLower("it keeps no running statistics, so it depends on the batch: set track_running_stats=True")
    if training:
        raise CannotLower("it normalises by the batch's own statistics: export the model in eval mode")
    features = b.shapes[x][1]
    weight = weight or b.constant(np.ones(features, np.float32), f"{b.source.module}.weight")
    bias = bias or b.constant(np.zeros(features, np.float32), f"{b.source.module}.bias")
    return b.add(Op.BATCH_NORM, x, weight, bias, mean, variance, epsilon=epsilon)


# ---- activations ---------------------------------------------------------------------------------------------------


def _clamp(b: GraphBuilder, x: str, low: float | None = None, high: float | None = None) -> str:
    if low == 0 and high is None:
        return b.add(Op.RELU, x)
    if low == 0 and high == 6:
        return b.add(Op.RELU6, x)
    raise CannotLower(f"only clamps to [0, 6] and [0, inf) are supported, not to [{low}, {high}]")


def _hardtanh(b: GraphBuilder, x: str, low: float = -1.0, high: float = 1.0) -> str:
    return _clamp(b, x, low, high)


def _silu(b: GraphBuilder, x: str) -> str:
    return b.add(Op.MUL, x, b.add(Op.SIGMOID, x))


def _hardsigmoid(b: GraphBuilder, x: str) -> str:
    shifted = b.add(Op.RELU6, b.add(Op.ADD, x, b.constant(3.0)))
    return b.add(Op.MUL, shifted, b.constant(1 / 6))


def _softmax(b: GraphBuilder, x: str, axis: int, dtype: Any = None) -> str:
    return b.add(Op.SOFTMAX, x, axis=_axis(axis, len(b.shapes[x])))


# ---- arithmetic ----------------------------------------------------------------------------------------------------


def _arithmetic(op: Op) -> Rule:
    def rule(b: GraphBuilder, left: Any, right: Any, *, alpha: float = 1) -> str:
        if alpha != 1:
            right = b.add(Op.MUL, _tensor(b, right), b.constant(alpha))
        return b.add(op, _tensor(b, left), _tensor(b, right))

    return rule


def _rsub(b: GraphBuilder, left: Any, right: Any, alpha: float = 1) -> str:
    return str(_arithmetic(Op.SUB)(b, right, left, alpha=alpha))


def _div(b: GraphBuilder, left: Any, right: Any) -> str:
    if isinstance(right, (int, float)) and right:
        return b.add(Op.MUL, _tensor(b, left), b.constant(1 / right))
    if right in b.constants and b.constants[right].all():
        return b.add(Op.MUL, _tensor(b, left), b.constant((1 / b.constants[right]).astype(np.float32)))
    raise CannotLower("only division by a constant other than 0 is supported: multiply by the reciprocal instead")


def _tensor(b: GraphBuilder, value: Any) -> str:
    return b.constant(value) if isinstance(value, (int, float)) else str(value)


# ---- pooling and reduction -----------------------------------------------------------------------------------------


def _window(
    b: GraphBuilder, x: str, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool
) -> tuple[dict[str, Any], bool]:
    """Attributes of a pooling window, and whether ceil_mode added windows that reach past the padding."""
    kernel, pad = _pair(kernel_size), _pair(padding)
    stride = _pair(stride) if stride else kernel
    after = list(pad)
    if ceil_mode:
        for i, size in enumerate(b.shapes[x][2:]):
            extent = ceil((size + 2 * pad[i] - kernel[i]) / stride[i]) + 1
            if (extent - 1) * stride[i] >= size + pad[i]:
                extent -= 1  # the last window may not start in the padding
            after[i] = max(pad[i], (extent - 1) * stride[i] + kernel[i] - size - pad[i])
    window = {"kernel_size": kernel, "stride": stride, "padding": (*pad, *after)}
    return window, tuple(after) != pad


def _max_pool2d(
    b: GraphBuilder,
    x: str,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> str:
    if _pair(dilation) != (1, 1):
        raise CannotLower("dilated pooling is not supported")
    return b.add(Op.MAX_POOL2D, x, **_window(b, x, kernel_size, stride, padding, ceil_mode)[0])


def _avg_pool2d(
    b: GraphBuilder,
    x: str,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> str:
    if divisor_override is not None:
        raise CannotLower("divisor_override is not supported")
    window, reaches_past = _window(b, x, kernel_size, stride, padding, ceil_mode)
    if count_include_pad and any(_pair(padding)):
        if reaches_past:
            raise CannotLower("ceil_mode with padding that counts is not supported: set count_include_pad=False")
        top, left, bottom, right = window["padding"]
        x = b.add(Op.PAD, x, amounts=(0, 0, top, left, 0, 0, bottom, right))
        window["padding"] = (0, 0, 0, 0)
    return b.add(Op.AVG_POOL2D, x, **window)


def _adaptive_avg_pool2d(b: GraphBuilder, x: str, output_size: Any) -> str:
    if _pair(output_size) == (1, 1):
        rank = len(b.shapes[x])
        return b.add(Op.MEAN, x, axes=(rank - 2, rank - 1), keepdim=True)
    return b.add(Op.AVG_POOL2D, x, **_even_window(b, x, _pair(output_size)))


def _adaptive_max_pool2d(b: GraphBuilder, x: str, output_size: Any) -> list[str]:
    return [b.add(Op.MAX_POOL2D, x, **_even_window(b, x, _pair(output_size)))]


def _even_window(b: GraphBuilder, x: str, output_size: Pair) -> dict[str, Any]:
    size = b.shapes[x][2:]
    if any(extent % wanted for extent, wanted in zip(size, output_size, strict=True)):
        raise CannotLower(f"adaptive pooling of {size} to {output_size} has windows of several sizes")
    kernel = (size[0] // output_size[0], size[1] // output_size[1])
    return {"kernel_size": kernel, "stride": kernel}


def _mean(b: GraphBuilder, x: str, axes: Any = None, keepdim: bool = False, dtype: Any = None) -> str:
    rank = len(b.shapes[x])
    chosen = range(rank) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
    return b.add(Op.MEAN, x, axes=tuple(sorted(_axis(a, rank) for a in chosen)), keepdim=keepdim)


# ---- shape ---------------------------------------------------------------------------------------------------------


def _permute(b: GraphBuilder, x: str, axes: Sequence[int]) -> str:
    rank = len(b.shapes[x])
    return b.add(Op.PERMUTE, x, axes=tuple(_axis(a, rank) for a in axes))


def _transpose(b: GraphBuilder, x: str, first: int = 0, second: int = 1) -> str:
    axes = list(range(len(b.shapes[x])))
    axes[first], axes[second] = axes[second], axes[first]
    return _permute(b, x, axes)


def _cat(b: GraphBuilder, tensors: Sequence[str], axis: int = 0) -> str:
    return tensors[0] if len(tensors) == 1 else b.add(Op.CONCAT, *tensors, axis=_axis(axis, len(b.shapes[tensors[0]])))


def _stack(b: GraphBuilder, tensors: Sequence[str], axis: int = 0) -> str:
    axis = _axis(axis, len(b.shapes[tensors[0]]) + 1)
    wide = [b.reshape(t, (*b.shapes[t][:axis], 1, *b.shapes[t][axis:])) for t in tensors]
    return _cat(b, wide, axis)


def _pad(b: GraphBuilder, x: str, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> str:
    if mode != "constant":
        raise CannotLower(f"padding mode {mode!r} is not supported: pad with a constant")
    rank = len(b.shapes[x])
    before, after = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pad[2 * i], pad[2 * i + 1]
    if min(before + after) < 0:
        raise CannotLower("negative padding is not supported: slice instead")
    return b.add(Op.PAD, x, amounts=(*before, *after), value=float(value or 0.0))


def _constant_pad(b: GraphBuilder, x: str, pad: Sequence[int], value: float = 0.0) -> str:
    return _pad(b, x, pad, "constant", value)


def _slice(b: GraphBuilder, x: str, axis: int = 0, start: Any = None, stop: Any = None, step: int = 1) -> str:
    axis = _axis(axis, len(b.shapes[x]))
    size = b.shapes[x][axis]
    start, stop, _ = slice(start, stop).indices(size)
    return b.add(Op.SLICE, x, axes=(axis,), starts=(start,), stops=(max(stop, start),), steps=(step,))


def _select(b: GraphBuilder, x: str, axis: int, index: int) -> str:
    shape = b.shapes[x]
    axis = _axis(axis, len(shape))
    index %= shape[axis]
    taken = _slice(b, x, axis, index, index + 1)
    return b.reshape(taken, shape[:axis] + shape[axis + 1 :])


def _narrow(b: GraphBuilder, x: str, axis: int, start: int, length: int) -> str:
    start %= b.shapes[x][_axis(axis, len(b.shapes[x]))]
    return _slice(b, x, axis, start, start + length)


def _split(b: GraphBuilder, x: str, sizes: int | Sequence[int], axis: int = 0) -> list[str]:
    axis = _axis(axis, len(b.shapes[x]))
    size = b.shapes[x][axis]
    lengths = [min(sizes, size - at) for at in range(0, size, sizes)] if isinstance(sizes, int) else list(sizes)
    starts = np.cumsum([0, *lengths])
    return [_slice(b, x, axis, int(at), int(at) + length) for at, length in zip(starts, lengths, strict=False)]


def _chunk(b: GraphBuilder, x: str, chunks: int, axis: int = 0) -> list[str]:
    return _split(b, x, ceil(b.shapes[x][axis] / chunks), axis)


def _plain(op: Op) -> Rule:
    return lambda b, x: b.add(op, x)


ATEN_RULES: dict[str, Rule] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": _plain(Op.RELU),
    "relu6": _plain(Op.RELU6),
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "leaky_relu": lambda b, x, slope=0.01: b.add(Op.LEAKY_RELU, x, slope=slope),
    "sigmoid": _plain(Op.SIGMOID),
    "tanh": _plain(Op.TANH),
    "hardswish": _plain(Op.HARDSWISH),
    "hardsigmoid": _hardsigmoid,
    "silu": _silu,
    "softmax": _softmax,
    "add": _arithmetic(Op.ADD),
    "sub": _arithmetic(Op.SUB),
    "rsub": _rsub,
    "mul": _arithmetic(Op.MUL),
    "div": _div,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "adaptive_max_pool2d": _adaptive_max_pool2d,
    "mean": _mean,
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    "cat": _cat,
    "concat": _cat,
    "stack": _stack,
    "pad": _pad,
    "constant_pad_nd": _constant_pad,
    "slice": _slice,
    "select": _select,
    "narrow": _narrow,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _chunk,
}

RESHAPES = frozenset({"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view"})
"""Ops whose result is the same elements in the shape that the exported program recorded."""

_COPIES = frozenset({"clone", "_to_copy", "lift_fresh_copy"})
IDENTITIES = _COPIES | {"dropout", "feature_dropout", "contiguous", "detach", "alias", "to"}
"""Ops that do nothing to a float model in eval mode."""

_MOVED = frozenset({"permute", "transpose", "t", "slice", "select", "narrow", "split", "split_with_sizes", "chunk"})
VIEWS = RESHAPES | _MOVED | IDENTITIES - _COPIES
"""Ops whose result may lie in the memory of their first argument."""
