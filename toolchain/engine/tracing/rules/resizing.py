"""Resizing of images, and channels that become pixels.

Along each axis a resize reads, for the i-th result,

    nearest         x[floor(i in / out)]
    linear          (1 - w) x[floor(c)] + w x[floor(c) + 1],  w = c - floor(c), c held inside the axis
                    c = (i + 0.5) in / out - 0.5, or i (in - 1) / (out - 1) where the corners are aligned

torch puts the scale factor it was given in place of out / in. Where that makes a difference, and where float32 reads
another neighbour than exact arithmetic, the places read are written out: a gather, or two and their weighted sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.images import of_images, on_images, take
from toolchain.engine.tracing.rules.rule import Pair, Rule
from toolchain.graph import Op

Factors = tuple[float | None, float | None]
"""What torch was told of out / in along the height and the width, if anything."""


def _target(shape: Sequence[int], size: Any, factors: Any) -> tuple[Pair, Factors]:
    """Size of the result, and the scale factors given for it; a sequence is an image of height 1."""
    given = [None if f is None else float(f) for f in factors] if factors else []
    if size is not None:
        wanted = [int(s) for s in size]
    else:
        wanted = [int(s * f) for s, f in zip(shape[-len(given) :], given, strict=True) if f is not None]
    if len(wanted) == 1:
        wanted, given = [1, *wanted], [None, *given]
    told = (given[0], given[1]) if len(given) == 2 else (None, None)
    return (wanted[0], wanted[1]), told


def _nearest(b: GraphBuilder, x: str, size: Any, *factors: Any) -> str:
    return _by_places(b, x, size, factors, 0.0)


def _nearest_exact(b: GraphBuilder, x: str, size: Any, *factors: Any) -> str:
    return _by_places(b, x, size, factors, 0.5)


def _by_places(b: GraphBuilder, x: str, size: Any, factors: Any, middle: float) -> str:
    axes = len(b.shapes[x]) - 2
    wanted, told = _target(b.shapes[x], size, _listed(factors))

    def read(b: GraphBuilder, image: str) -> str:
        sizes = b.shapes[image][2:]
        places = [_nearest_places(*of, middle) for of in zip(sizes, wanted, told, strict=True)]
        if all(map(_is_plain, sizes, wanted, places)):
            return b.add(Op.RESIZE, image, size=wanted, mode="nearest")
        for axis, found in enumerate(places, start=2):
            image = take(b, image, axis, found)
        return image

    return on_images(b, x, axes, read)


def _listed(factors: Sequence[Any]) -> list[Any] | None:
    """Scale factors from either of torch's forms: one list, or one argument an axis."""
    found = factors[0] if len(factors) == 1 and isinstance(factors[0], (list, tuple)) else factors
    return None if found is None or all(f is None for f in found) else list(found)


def _nearest_places(size: int, wanted: int, factor: float | None, middle: float) -> list[int]:
    """As torch computes them, in float32."""
    scale = np.float32(1 / factor) if factor else np.float32(size) / np.float32(wanted)
    steps = np.arange(wanted, dtype=np.float32) + np.float32(middle)
    return [min(int(place), size - 1) for place in np.floor(steps * scale)]


def _is_plain(size: int, wanted: int, places: list[int]) -> bool:
    """Whether a runtime reads the same, be it that it multiplies by in / out or divides by out / in."""
    steps = np.arange(wanted, dtype=np.float32)
    divided = np.floor(steps / (np.float32(wanted) / np.float32(size)))
    multiplied = np.floor(steps * (np.float32(size) / np.float32(wanted)))
    exact = [step * size // wanted for step in range(wanted)]
    return bool(places == exact and np.array_equal(divided, exact) and np.array_equal(multiplied, exact))


def _linear(b: GraphBuilder, x: str, size: Any, align_corners: bool, *factors: Any) -> str:
    axes = len(b.shapes[x]) - 2
    wanted, told = _target(b.shapes[x], size, _listed(factors))

    def read(b: GraphBuilder, image: str) -> str:
        sizes = b.shapes[image][2:]
        given = zip(sizes, wanted, told, strict=True)
        if align_corners or all(f is None or np.float32(1 / f) == np.float32(s / w) for s, w, f in given):
            return b.add(Op.RESIZE, image, size=wanted, mode="bilinear", align_corners=align_corners)
        for axis, of in enumerate(zip(sizes, wanted, told, strict=True), start=2):
            image = _interpolate(b, image, axis, *of)
        return image

    return on_images(b, x, axes, read)


def _interpolate(b: GraphBuilder, x: str, axis: int, size: int, wanted: int, factor: float | None) -> str:
    """The two neighbours of every place along one axis, by their weights."""
    if size == wanted and factor in (None, 1.0):
        return x
    step = 1 / factor if factor else size / wanted
    places = np.maximum((np.arange(wanted) + 0.5) * step - 0.5, 0)
    low = np.minimum(np.floor(places).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    shape = [-1 if a == axis else 1 for a in range(4)]
    weight = (places - low).astype(np.float32).reshape(shape)
    lower, upper = (take(b, x, axis, found.tolist()) for found in (low, high))
    left = b.add(Op.MUL, lower, b.constant(np.float32(1) - weight))
    return b.add(Op.ADD, left, b.add(Op.MUL, upper, b.constant(weight)))


def _pixel_shuffle(b: GraphBuilder, x: str, block: int) -> str:
    return b.add(Op.DEPTH_TO_SPACE, x, block=block)


def _pixel_unshuffle(b: GraphBuilder, x: str, block: int) -> str:
    return b.add(Op.SPACE_TO_DEPTH, x, block=block)


def _channel_shuffle(b: GraphBuilder, x: str, groups: int) -> str:
    channels = b.shapes[x][1]
    places = np.arange(channels).reshape(groups, -1).T.reshape(-1)
    return take(b, x, 1, places.tolist())


def _refused(name: str) -> Rule:
    def rule(b: GraphBuilder, *arguments: Any, **named: Any) -> str:
        raise CannotLower(f"no runtime resizes as torch does ({name}): resize by nearest or bilinear")

    return rule


RESIZING: dict[str, Rule] = {
    "upsample_nearest1d": _nearest,
    "upsample_nearest2d": _nearest,
    "_upsample_nearest_exact1d": _nearest_exact,
    "_upsample_nearest_exact2d": _nearest_exact,
    "upsample_linear1d": _linear,
    "upsample_bilinear2d": _linear,
    "pixel_shuffle": of_images(_pixel_shuffle),
    "pixel_unshuffle": of_images(_pixel_unshuffle),
    "channel_shuffle": _channel_shuffle,
}

REFUSED: dict[str, Rule] = {
    "upsample_bicubic2d": _refused("bicubic"),
    "_upsample_bicubic2d_aa": _refused("bicubic"),
    "_upsample_bilinear2d_aa": _refused("antialiased"),
}
"""Known, and refused with advice."""
