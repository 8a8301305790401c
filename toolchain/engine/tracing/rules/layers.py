"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolchain.engine.tracing.builder import GraphBuilder
from toolchain.engine.tracing.rules.images import along, on_images
from toolchain.engine.tracing.rules.rule import Pair, Rule, both_sides, pair
from toolchain.graph import Op


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
    window = {"stride": pair(stride), "dilation": pair(dilation)}
    padding = padding if isinstance(padding, str) else pair(padding)
    return on_images(b, x, 2, lambda b, image: _convolve(b, image, weight, bias, padding, groups, window))


def _conv1d(
    b: GraphBuilder,
    x: str,
    weight: str,
    bias: str | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> str:
    window = {"stride": along(stride, 1), "dilation": along(dilation, 1)}
    padding = padding if isinstance(padding, str) else along(padding, 0)
    wide = _flat_kernel(b, weight)
    return on_images(b, x, 1, lambda b, image: _convolve(b, image, wide, bias, padding, groups, window))


def _convolve(
    b: GraphBuilder, x: str, weight: str, bias: str | None, padding: str | Pair, groups: int, window: dict[str, Pair]
) -> str:
    around = _padding(b.shapes[weight][2:], padding, window["dilation"])
    inputs = (x, weight) if bias is None else (x, weight, bias)
    channels, fan_in = b.shapes[x][1], b.shapes[weight][1]
    if groups == channels and groups > 1 and fan_in == 1:
        return b.add(Op.DEPTHWISE_CONV2D, *inputs, padding=around, **window)
    return b.add(Op.CONV2D, *inputs, groups=groups, padding=around, **window)


def _padding(kernel: Sequence[int], padding: str | Pair, dilation: Pair) -> tuple[int, int, int, int]:
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        before = [total // 2 for total in totals]
        return (before[0], before[1], totals[0] - before[0], totals[1] - before[1])
    assert not isinstance(padding, str)
    return both_sides(padding)


def _flat_kernel(b: GraphBuilder, weight: str) -> str:
    """`(F, C, K)` as `(F, C, 1, K)`."""
    features, fan_in, size = b.shapes[weight]
    wide = (features, fan_in, 1, size)
    return b.rearrange(weight, wide, (0, 1, 2, 3), wide)


def _conv_transpose2d(
    b: GraphBuilder,
    x: str,
    weight: str,
    bias: str | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> str:
    window: dict[str, Any] = {
        "stride": pair(stride),
        "dilation": pair(dilation),
        "output_padding": pair(output_padding),
    }
    window["padding"] = both_sides(pair(padding))
    ours = _features_first(b, weight, groups)
    inputs = (ours,) if bias is None else (ours, bias)
    return on_images(b, x, 2, lambda b, image: b.add(Op.CONV_TRANSPOSE2D, image, *inputs, groups=groups, **window))


def _conv_transpose1d(
    b: GraphBuilder,
    x: str,
    weight: str,
    bias: str | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> str:
    window: dict[str, Any] = {"stride": along(stride, 1), "dilation": along(dilation, 1)}
    window |= {"output_padding": along(output_padding, 0), "padding": both_sides(along(padding, 0))}
    ours = _features_first(b, weight, groups)
    inputs = (ours,) if bias is None else (ours, bias)
    return on_images(b, x, 1, lambda b, image: b.add(Op.CONV_TRANSPOSE2D, image, *inputs, groups=groups, **window))


def _features_first(b: GraphBuilder, weight: str, groups: int) -> str:
    """torch's `(C_in, C_out / groups, *kernel)` as `(C_out, C_in / groups, kH, kW)`."""
    channels, features, *kernel = b.shapes[weight]
    size = (1, *kernel) if len(kernel) == 1 else tuple(kernel)
    split = (groups, channels // groups, features, *size)
    return b.rearrange(weight, split, (0, 2, 1, 3, 4), (groups * features, channels // groups, *size))


LAYERS: dict[str, Rule] = {
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    "conv_transpose1d": _conv_transpose1d,
    "conv_transpose2d": _conv_transpose2d,
}
