"""Norms over the values of a sample, and by statistics of the training (batch norms).

A group norm is a layer norm over the channels of each group and all places, without a weight; the weights of channels
follow as a product and a sum. An instance norm has one channel a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.graph import Op

_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


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


def _layer_norm(
    b: GraphBuilder,
    x: str,
    shape: Sequence[int],
    weight: str | None = None,
    bias: str | None = None,
    epsilon: float = 1e-5,
    *_: object,
) -> str:
    rank = len(b.shapes[x])
    axes = tuple(range(rank - len(shape), rank))
    if weight is None and bias is not None:
        weight = b.constant(np.ones(tuple(shape), np.float32))
    parameters = [name for name in (weight, bias) if name is not None]
    return b.add(Op.LAYER_NORM, x, *parameters, axes=axes, epsilon=epsilon)


def _rms_norm(
    b: GraphBuilder, x: str, shape: Sequence[int], weight: str | None = None, epsilon: float | None = None
) -> str:
    rank = len(b.shapes[x])
    axes = tuple(range(rank - len(shape), rank))
    given = (x,) if weight is None else (x, weight)
    return b.add(Op.RMS_NORM, *given, axes=axes, epsilon=_FLOAT32_EPSILON if epsilon is None else epsilon)


def _group_norm(
    b: GraphBuilder,
    x: str,
    groups: int,
    weight: str | None = None,
    bias: str | None = None,
    epsilon: float = 1e-5,
    *_: object,
) -> str:
    batch, channels, *places = b.shapes[x]
    apart = b.reshape(x, (batch, groups, channels // groups, *places))
    axes = tuple(range(2, 3 + len(places)))
    even = b.reshape(b.add(Op.LAYER_NORM, apart, axes=axes, epsilon=epsilon), b.shapes[x])
    for op, parameter in ((Op.MUL, weight), (Op.ADD, bias)):
        if parameter is not None:
            even = b.add(op, even, b.reshape(parameter, (channels, *[1] * len(places))))
    return even


def _instance_norm(
    b: GraphBuilder,
    x: str,
    weight: str | None,
    bias: str | None,
    mean: str | None,
    variance: str | None,
    use_input_stats: bool,
    momentum: float,
    epsilon: float,
    *_: object,
) -> str:
    if not use_input_stats:
        return _batch_norm(b, x, weight, bias, mean, variance, False, momentum, epsilon)
    return _group_norm(b, x, b.shapes[x][1], weight, bias, epsilon)


NORMS: dict[str, Rule] = {
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
}
