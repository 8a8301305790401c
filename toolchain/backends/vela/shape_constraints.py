"""Checks of shapes, windows and axes by the sentences of the compiler's tables (see `constraints`).

Shapes are the file's own, channels last; `H` and `W` are the two axes before the last, 1 where there are fewer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import log2, prod
from typing import Final

import numpy as np

from toolchain.backends.vela.operators import VALID, FileOperator
from toolchain.graph import DType

_LARGE = 2**16


def _hwc(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels; leading axes beyond three are the batch."""
    height, width, channels = (1, 1, 1, *shape)[-3:]
    return height, width, channels


def _strides(operator: FileOperator) -> tuple[int, int]:
    return operator.attributes.get("stride_h", 1), operator.attributes.get("stride_w", 1)


def _stride_of_3(operator: FileOperator, sentence: str) -> str | None:
    strides = _strides(operator)
    return f"stride is {max(strides)}, the NPU takes at most 3" if max(strides) > 3 else None


def _stride_if_valid(operator: FileOperator, sentence: str) -> str | None:
    dilation = max(operator.attributes.get("dilation_h", 1), operator.attributes.get("dilation_w", 1))
    if max(_strides(operator)) <= 3 or (dilation == 1 and operator.attributes.get("padding") == VALID):
        return None
    return f"stride is {max(_strides(operator))} beside padding or dilation, where the NPU takes at most 3"


def _average_kernel(operator: FileOperator, sentence: str) -> str | None:
    height, width = operator.attributes.get("kernel_h", 1), operator.attributes.get("kernel_w", 1)
    if operator.attributes.get("padding") == VALID:
        return _large_kernel(height, width)
    return f"kernel is {height}x{width} with padding, at most 8x8" if max(height, width) > 8 else None


def _max_kernel(operator: FileOperator, sentence: str) -> str | None:
    return _large_kernel(operator.attributes.get("kernel_h", 1), operator.attributes.get("kernel_w", 1))


def _large_kernel(height: int, width: int) -> str | None:
    if height <= 256 and height * width <= 256 * 256:
        return None
    return f"kernel is {height}x{width}, at most 256 high and 65,536 elements"


def _same_shape(operator: FileOperator, sentence: str) -> str | None:
    before, after = operator.feature_maps[0].shape, operator.outputs[0].shape
    return f"{list(before)} becomes {list(after)}" if before != after else None


def _is_dynamic(operator: FileOperator) -> bool:
    return operator.op == "BATCH_MATMUL" or (operator.weight is not None and not operator.weight.is_constant)


def _summed_axis(operator: FileOperator, sentence: str) -> str | None:
    size = operator.feature_maps[0].shape[-1]
    return f"{size:,} products a sum, at most {_LARGE:,}" if _is_dynamic(operator) and size > _LARGE else None


def _made_channels(operator: FileOperator, sentence: str) -> str | None:
    size = operator.outputs[0].shape[-1]
    return f"{size:,} columns, at most {_LARGE:,}" if _is_dynamic(operator) and size > _LARGE else None


def _matmul_dtype(operator: FileOperator, sentence: str) -> str | None:
    dtype = operator.feature_maps[0].dtype
    wrong = _is_dynamic(operator) and dtype is not DType.INT8
    return f"a product of two activations of {dtype}, the NPU has it in int8" if wrong else None


def _softmax_rows(operator: FileOperator, sentence: str) -> str | None:
    height, width, _ = _hwc(operator.feature_maps[0].shape)
    return f"{height * width:,} rows, fewer than 65,536" if height * width >= _LARGE else None


def _axes(operator: FileOperator) -> tuple[int, ...]:
    values, rank = operator.values[1], len(operator.feature_maps[0].shape)
    return tuple(int(axis) % rank for axis in np.ravel(values)) if values is not None and rank else ()


def _batch_of_1(operator: FileOperator, sentence: str) -> str | None:
    shape = operator.feature_maps[0].shape
    batch = prod(shape[:-3])
    return f"batch is {batch}, the NPU takes 1" if batch > 1 else None


def _mean_depth(operator: FileOperator, sentence: str) -> str | None:
    shape = operator.feature_maps[0].shape
    over_channels = len(shape) - 1 in _axes(operator)
    return f"a mean over channels of {list(shape)}" if over_channels and 1 not in _hwc(shape) else None


def _mean_axis(operator: FileOperator, sentence: str) -> str | None:
    shape = operator.feature_maps[0].shape
    longest = max((shape[axis] for axis in _axes(operator)), default=1)
    limit = int(sentence.rstrip(".").rsplit(" ", 1)[1])
    return f"an axis of {longest:,} is averaged, fewer than {limit:,}" if longest >= limit else None


def _mean_elements(operator: FileOperator, sentence: str) -> str | None:
    facts = operator.feature_maps[0]
    limits = {word.lower(): int(number) for number, word in re.findall(r"(\d+)\((\w+)\)", sentence)}
    count, limit = prod(facts.shape[axis] for axis in _axes(operator)), limits.get(facts.dtype.value.lower())
    return f"{count:,} elements a mean, at most {limit:,}" if limit is not None and count > limit else None


def _slice_steps(operator: FileOperator, sentence: str) -> str | None:
    steps = operator.values[3] if len(operator.values) > 3 else None
    if steps is None:
        return None
    if (np.asarray(steps) < 0).any():
        return "a negative step"
    rank = len(operator.feature_maps[0].shape)
    wrong = [axis for axis, step in enumerate(np.ravel(steps)) if step != 1 and axis not in (rank - 3, rank - 2)]
    return f"a step of {int(np.ravel(steps)[wrong[0]])} along axis {wrong[0]}" if wrong else None


def _argmax_depth(operator: FileOperator, sentence: str) -> str | None:
    size = operator.feature_maps[0].shape[-1]
    return f"argmax over {size} channels, at most 127" if size > 127 else None


def _argmax_axis(operator: FileOperator, sentence: str) -> str | None:
    axes, rank = _axes(operator), len(operator.feature_maps[0].shape)
    return f"argmax along axis {axes[0]}, not along channels" if axes and axes != (rank - 1,) else None


def _transposed_shape(operator: FileOperator, sentence: str) -> str | None:
    (source, *_), made = operator.feature_maps, operator.outputs[0].shape
    assert operator.weight is not None
    valid = operator.attributes.get("padding") == VALID
    for axis, stride in ((1, _strides(operator)[0]), (2, _strides(operator)[1])):
        wanted = source.shape[axis] * stride + (max(operator.weight.shape[axis] - stride, 0) if valid else 0)
        if made[axis] != wanted:
            return f"{source.shape[axis]} becomes {made[axis]} at stride {stride}, the NPU makes {wanted}"
    return None


def _transposed_strides(operator: FileOperator, sentence: str) -> str | None:
    (height, width, _), strides = _hwc(operator.feature_maps[0].shape), _strides(operator)
    assert operator.weight is not None
    flat = height == 1 and operator.weight.shape[1] == 1
    thin = width == 1 and operator.weight.shape[2] == 1
    if strides in ((1, 1), (2, 2)) or (flat and strides == (1, 2)) or (thin and strides == (2, 1)):
        return None
    return f"stride is {strides[0]}x{strides[1]}, the NPU takes 1x1 and 2x2"


def _scale_factors(operator: FileOperator) -> tuple[float, float] | None:
    """By which height and width grow; None where nothing is resized or one pixel is repeated."""
    before, after = operator.feature_maps[0].shape[1:3], operator.outputs[0].shape[1:3]
    if before in ((1, 1), after):
        return None
    less = int(bool(operator.attributes.get("align_corners")))
    pairs = zip(after, before, strict=True)
    height, width = ((new - less) / (old - less) if old > less else float(new) for new, old in pairs)
    return height, width


def _resize_u55(operator: FileOperator, sentence: str) -> str | None:
    factors = _scale_factors(operator)
    if factors is None:
        return None
    halves = "half pixel" in sentence and bool(operator.attributes.get("half_pixel_centers"))
    if factors[0] != factors[1]:
        sizes = zip(factors, operator.outputs[0].shape[1:3], strict=True)
        flat = any(factor == 1 and size == 1 for factor, size in sizes)
        if not flat or halves:
            return f"height grows by {factors[0]:g} and width by {factors[1]:g}"
    known = (2,) if halves else (2, 4, 8)
    wanted = " or ".join(map(str, known))
    return None if max(factors) in known else f"it grows by {max(factors):g}, the NPU by {wanted}"


def _corners_and_centers(operator: FileOperator, sentence: str) -> str | None:
    both = operator.attributes.get("align_corners") and operator.attributes.get("half_pixel_centers")
    return "align_corners and half_pixel_centers at once" if both else None


def _largest_factor(operator: FileOperator, sentence: str) -> str | None:
    factors, (corners, plain) = _scale_factors(operator), (int(n) for n in re.findall(r"maximum (\d+)", sentence))
    limit = corners if operator.attributes.get("align_corners") else plain
    return f"it grows by {max(factors):g}, at most {limit:,}" if factors and max(factors) > limit else None


def _factor_of_2(operator: FileOperator, sentence: str) -> str | None:
    factors = _scale_factors(operator) or (1, 1)
    wrong = [factor for factor in factors if factor < 1 or not log2(factor).is_integer()]
    return f"it grows by {wrong[0]:g}, the NPU by powers of two" if wrong else None


def _moved_rank(operator: FileOperator, sentence: str) -> str | None:
    rank = len(operator.feature_maps[0].shape)
    return f"{rank} axes, at most 8" if rank > 8 else None


def _moved_int32(operator: FileOperator, sentence: str) -> str | None:
    facts, order = operator.feature_maps[0], operator.values[1]
    if facts.dtype is not DType.INT32 or order is None:
        return None
    rank = len(facts.shape)
    if rank > 4:
        return f"{rank} axes of int32, at most 4"
    moved = tuple(range(4 - rank)) + tuple(int(axis) + 4 - rank for axis in np.ravel(order))
    known = moved in ((0, 1, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2))
    return None if known and max(facts.shape) <= 2**14 else f"int32 of {list(facts.shape)} moved by {list(moved)}"


def _moved_planes(operator: FileOperator, sentence: str) -> str | None:
    facts, order = operator.feature_maps[0], operator.values[1]
    if facts.dtype is DType.INT32 or order is None:
        return None
    shape, moved = facts.shape, tuple(int(axis) for axis in np.ravel(order))
    if moved == tuple(range(len(shape))):
        return None
    if prod(shape[:-3]) == 1 and moved[: len(shape) - 3] == tuple(range(len(shape) - 3)):
        return f"axes of {list(shape)} are longer than 65,536" if max(shape) > _LARGE else None
    ordered = sorted(shape, reverse=True)
    largest = prod(ordered[: len(ordered) - 2])
    return f"planes of {largest:,} elements are moved, at most 65,536" if largest > _LARGE else None


def _gather_axis(operator: FileOperator, sentence: str) -> str | None:
    axis, leading = operator.attributes.get("axis", 0), operator.attributes.get("batch_dims", 0)
    return f"slices along axis {axis} are gathered, the NPU gathers along axis {leading}" if axis != leading else None


SHAPE_CHECKS: Final[dict[str, Callable[[FileOperator, str], str | None]]] = {
    "Kernel stride must be in the range (1,3)": _stride_of_3,
    "Stride>3 is only supported IF": _stride_if_valid,
    "Kernel constraints": _average_kernel,
    "kernel product must be less": _max_kernel,
    "IFM and OFM shapes must match": _same_shape,
    "IF Matmul or (FC with dynamic weights): Reduced axis": _summed_axis,
    "IF Matmul or (FC with dynamic weights): OFM depth": _made_channels,
    "IF Matmul or (FC with dynamic weights): IFM precision": _matmul_dtype,
    "The product of IFM width and height must be less": _softmax_rows,
    "Batch must be 1": _batch_of_1,
    "Reduction over depth is only supported": _mean_depth,
    "Reduced axis must be less than": _mean_axis,
    "Amount of reduced elements cannot exceed": _mean_elements,
    "Slice must represent a volume": _slice_steps,
    "IFM depth must be less than or equal to 127": _argmax_depth,
    "Operation must be performed along the depth axis": _argmax_axis,
    "Shape constraints": _transposed_shape,
    "Stride values WxH must be": _transposed_strides,
    "IF not (IFM H == IFM W == 1)": _resize_u55,
    "IF NOT (IFM H == IFM W == 1)": _resize_u55,
    "align_corners and half_pixel_centers are": _corners_and_centers,
    "Scale-factor:": _largest_factor,
    "Scale-factor must be an integer power": _factor_of_2,
    "Tensor dimension must be <= 8": _moved_rank,
    "IF IFM is Int32": _moved_int32,
    "IF IFM is Int8 or Int16": _moved_planes,
    "axis must be equal to batch_dims": _gather_axis,
}
"""By the beginning of the sentence."""
