"""Ops along one axis as ops on images: `(N, C, L)` is `(N, C, 1, L)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.rule import Pair, Rule
from toolchain.graph import Op

OnImages: TypeAlias = Callable[[GraphBuilder, str], str]


def along(value: int | Sequence[int], height: int) -> Pair:
    """What a 1-d op says of its one axis, as (height, width); `height` is what leaves the height alone."""
    values = [value] if isinstance(value, int) else list(value)
    return (height, int(values[0]))


def on_images(b: GraphBuilder, x: str, spatial: int, function: OnImages) -> str:
    """`function` of `x (N, C, *axes)` seen as `(N, C, H, W)`; `spatial` is the number of axes, 1 or 2."""
    shape = b.shapes[x]
    if len(shape) != spatial + 2:
        what = "sequences, (N, C, L)" if spatial == 1 else "images, (N, C, H, W)"
        raise CannotLower(f"it takes a batch of {what}, not a tensor of rank {len(shape)}")
    if spatial == 2:
        return function(b, x)
    result = function(b, b.reshape(x, (*shape[:2], 1, shape[2])))
    batch, channels, _, length = b.shapes[result]
    return b.reshape(result, (batch, channels, length))


def of_images(rule: Rule) -> Rule:
    """A rule that takes batches of images and nothing else."""

    def checked(b: GraphBuilder, x: str, *arguments: Any, **named: Any) -> str:
        return on_images(b, x, 2, lambda b, image: str(rule(b, image, *arguments, **named)))

    return checked


def take(b: GraphBuilder, x: str, axis: int, places: Sequence[int]) -> str:
    """The elements at `places` along `axis`: a slice where they lie evenly, else a gather."""
    first, count = int(places[0]), len(places)
    step = int(places[1]) - first if count > 1 else 1
    if step > 0 and list(places) == list(range(first, first + step * count, step)):
        if count == b.shapes[x][axis]:
            return x
        stop = first + step * (count - 1) + 1
        return b.add(Op.SLICE, x, axes=(axis,), starts=(first,), stops=(stop,), steps=(step,))
    return b.add(Op.GATHER, x, b.constant(np.asarray(places, np.int64)), axis=axis)


def join(b: GraphBuilder, parts: Sequence[str], axis: int) -> str:
    """`parts` one behind the other."""
    return parts[0] if len(parts) == 1 else b.add(Op.CONCAT, *parts, axis=axis)
