"""Parts and forms of weights that operators without groups or dilation are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from toolchain.formats.tflite.layout import Flattened, Layout
from toolchain.quantization import AffineParams


def dilated(weight: np.ndarray, dilation: Sequence[int]) -> np.ndarray:
    """A weight `(F, C, kH, kW)` with zeros between its elements."""
    size = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    spread = np.zeros((*weight.shape[:2], *size), weight.dtype)
    spread[:, :, :: dilation[0], :: dilation[1]] = weight
    return spread


def rows_of(params: AffineParams, rows: slice | np.ndarray) -> AffineParams:
    """The parameters of some output channels, or of all in another order."""
    if params.axis is None:
        return params
    return replace(params, scale=params.scale[rows], zero_point=params.zero_point[rows])


def row_order(layout: Layout) -> np.ndarray | None:
    """The order in which a linear layer makes its features, where its result is an image channels last."""
    flat = layout.flattened
    if flat is None or flat.axis != layout.rank - 1:
        return None
    vector = Layout((0,), Flattened(0, flat.shape, flat.order))
    return vector.to_physical(np.arange(prod(flat.shape)))
