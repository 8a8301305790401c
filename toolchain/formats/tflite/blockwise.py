"""Scales of blocks of inputs as TFLite has them: a float16 tensor `(O, K / block)` that the weight names.

XNNPACK keeps these scales as bfloat16; those that `quantization.affine.block_params` makes it keeps exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from toolchain.errors import UnsupportedError

NONE = -1


def to_details(block: int, scales: int) -> Any:
    """Parameters of a weight whose blocks have the scales of the tensor numbered `scales`."""
    details = schema.BlockwiseQuantizationT(scales=scales, zeroPoints=NONE, blockSize=block)
    return schema.QuantizationParametersT(
        detailsType=schema.QuantizationDetails.BlockwiseQuantization, details=details, quantizedDimension=0
    )


def details_of(params: Any) -> Any:
    """The schema's table of a weight that has scales of blocks, or None."""
    if params.DetailsType() != schema.QuantizationDetails.BlockwiseQuantization or params.Details() is None:
        return None
    details = schema.BlockwiseQuantization()
    details.Init(params.Details().Bytes, params.Details().Pos)
    return details


def read_scales(details: Any, shape: Sequence[int], tensor: Any, content: np.ndarray) -> tuple[tuple[float, ...], int]:
    """Scales row by row and the block size, of a weight of `shape` whose scales are `tensor` with the bytes `content`.

    Raises ValueError where these do not fit the weight, UnsupportedError for zero points and other types of scales.
    """
    block = int(details.BlockSize())
    if details.ZeroPoints() > 0 or tensor.Type() != schema.TensorType.FLOAT16:
        raise UnsupportedError("the TFLite file has blocks with zero points, or scales that are not float16")
    if len(shape) != 2 or block <= 0 or shape[1] % block:
        raise ValueError(f"a weight of shape {tuple(shape)} has blocks of {block}")
    scales = content.view(np.float16)
    held = () if tensor.ShapeIsNone() else tuple(int(size) for size in tensor.ShapeAsNumpy())
    if held != (shape[0], shape[1] // block) or scales.size != held[0] * held[1]:
        raise ValueError(f"a weight of shape {tuple(shape)} in blocks of {block} has scales of shape {held}")
    return tuple(scales.astype(np.float32).tolist()), block
