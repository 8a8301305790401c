"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolchain.engine.tracing.builder import GraphBuilder
from toolchain.engine.tracing.rules.images import along, on_images
from toolchain.engine.tracing.rules.rule import Pair, Rule, both_sides, pair
from toolchain.graph import Op


def _spread(spatial: int, value: Any, neutral: int) -> Pair:
    """What an op of one or two axes says of them, as (height, width)."""
    return pair(value) if spatial == 2 else along(value, neutral)


def _convolution(spatial: int) -> Rule:
    def rule(
        b: GraphBuilder,
        x: str,
        weight: str,
        bias: str | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> str:
        window = {"stride": _spread(spatial, stride, 1), "dilation": _spread(spatial, dilation, 1)}
        around = padding if isinstance(padding, str) else _spread(spatial, padding, 0)
        kernel = weight if spatial == 2 else _flat_kernel(b, weight)
        return on_images(b, x, spatial, lambda b, image: _convolve(b, image, kernel, bias, around, groups, window))

    return rule


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


def _transposed_convolution(spatial: int) -> Rule:
    def rule(
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
        attributes: dict[str, Any] = {
            "stride": _spread(spatial, stride, 1),
            "dilation": _spread(spatial, dilation, 1),
            "output_padding": _spread(spatial, output_padding, 0),
            "padding": both_sides(_spread(spatial, padding, 0)),
            "groups": groups,
        }
        ours = _features_first(b, weight, groups)
        inputs = (ours,) if bias is None else (ours, bias)
        return on_images(b, x, spatial, lambda b, image: b.add(Op.CONV_TRANSPOSE2D, image, *inputs, **attributes))

    return rule


def _features_first(b: GraphBuilder, weight: str, groups: int) -> str:
    """torch's `(C_in, C_out / groups, *kernel)` as `(C_out, C_in / groups, kH, kW)`."""
    channels, features, *kernel = b.shapes[weight]
    size = (1, *kernel) if len(kernel) == 1 else tuple(kernel)
    split = (groups, channels // groups, features, *size)
    return b.rearrange(weight, split, (0, 2, 1, 3, 4), (groups * features, channels // groups, *size))


LAYERS: dict[str, Rule] = {
    "conv1d": _convolution(1),
    "conv2d": _convolution(2),
    "conv_transpose1d": _transposed_convolution(1),
    "conv_transpose2d": _transposed_convolution(2),
}
