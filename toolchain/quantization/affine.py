"""The affine arithmetic, written once for every stage and writer (Jacob et al., arXiv 1712.05877, equation 1):

    real = scale (q - zero_point),      q = clip(round(real / scale) + zero_point, q_min, q_max)

Rounding is to nearest, ties to even. Scales are float32, as both file formats store them; parameters along a channel
axis are vectors `(C,)`, per-tensor parameters are of shape `()`. A weight `(O, K)` of a linear layer may have one scale
for every `block` neighbouring inputs of an output, `(O, K / block)` (block-wise quantization, Dettmers et al., arXiv
2110.02861):

    s = up(max |w| / q_max)        over the block, `up` to the next number of 8 significant bits, at least 2^-14.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.graph.types import DType

_TINY = float(np.finfo(np.float32).tiny)

# TFLite stores the scales of blocks as float16, whose normal numbers begin here; XNNPACK keeps their 8 leading bits
LEAST_BLOCK_SCALE = 2.0**-14
MOST_BLOCK_SCALE = 65280.0


@dataclass(frozen=True)
class AffineParams:
    """Scale and zero point of one tensor; `axis` is the channel axis, `None` per tensor. With `block` the scale is
    `(O, K / block)` of a weight `(O, K)`, and the zero point 0.

    `q_min` and `q_max` bound the integers: the dtype's whole range, but -127 and 127 for symmetric int8 weights.
    """

    dtype: DType
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None = None
    q_min: int = -128
    q_max: int = 127
    block: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", np.asarray(self.scale, np.float32))
        object.__setattr__(self, "zero_point", np.broadcast_to(np.asarray(self.zero_point, np.int64), self.scale.shape))
        if not np.all((self.scale > 0) & np.isfinite(self.scale)):
            raise ValueError(f"scales must be positive and finite, got {self.scale}")
        if self.block is not None:
            self._check_blocks()

    def _check_blocks(self) -> None:
        if self.axis != 0 or self.scale.ndim != 2 or np.any(self.zero_point):
            raise ValueError(f"scales of blocks are (outputs, blocks) without zero points, not {self.scale.shape}")
        is_within = np.all((self.scale >= LEAST_BLOCK_SCALE) & (self.scale <= MOST_BLOCK_SCALE))
        if not is_within or not np.array_equal(_bfloat16(self.scale), self.scale):
            raise ValueError("scales of blocks have 8 significant bits, within what float16 holds")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AffineParams) and self.to_plain() == other.to_plain()

    def __hash__(self) -> int:
        return hash((self.dtype, self.axis, self.block, self.scale.tobytes(), self.zero_point.tobytes()))

    @property
    def step(self) -> float:
        """The largest step between neighbouring representable values."""
        return float(self.scale.max())

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest representable real value of a per-tensor parameter."""
        scale, zero = float(self.scale.max()), int(self.zero_point.flat[0])
        return scale * (self.q_min - zero), scale * (self.q_max - zero)

    def broadcast(self, values: np.ndarray, rank: int) -> np.ndarray:
        """`values (C,)` shaped to multiply a tensor of `rank` along the channel axis; those of blocks as `(O, K)`."""
        if self.axis is None:
            return values.reshape(())
        if self.block is not None:
            return np.repeat(values, self.block, axis=1)
        return values.reshape([-1 if axis == self.axis else 1 for axis in range(rank)])

    def to_plain(self) -> dict[str, Any]:
        plain = {
            "dtype": self.dtype.value,
            "scale": [float(s) for s in self.scale.flat],
            "zero_point": [int(z) for z in self.zero_point.flat],
            "axis": self.axis,
            "q_min": self.q_min,
            "q_max": self.q_max,
        }
        if self.block is None:
            return plain
        # one zero says what a list as long as the scales would
        return {**plain, "zero_point": [0], "block": self.block, "blocks": self.scale.shape[1]}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> AffineParams:
        block = plain.get("block")
        if block is not None:
            scale = np.asarray(plain["scale"], np.float32).reshape(-1, plain["blocks"])
            return cls(DType(plain["dtype"]), scale, np.asarray(0), 0, plain["q_min"], plain["q_max"], block)
        shape = () if plain["axis"] is None else (-1,)
        scale = np.asarray(plain["scale"], np.float32).reshape(shape)
        zero = np.asarray(plain["zero_point"], np.int64).reshape(shape)
        return cls(DType(plain["dtype"]), scale, zero, plain["axis"], plain["q_min"], plain["q_max"])


def quantize(real: np.ndarray, params: AffineParams) -> np.ndarray:
    """Integers of `params.dtype` nearest to `real`, saturated to the parameter's bounds."""
    scale = params.broadcast(params.scale, real.ndim).astype(np.float64)
    zero = params.broadcast(params.zero_point, real.ndim)
    q = np.rint(real.astype(np.float64) / scale) + zero
    # arithmetic on an array without axes gives a scalar
    return np.asarray(np.clip(q, params.q_min, params.q_max), params.dtype.numpy)


def dequantize(q: np.ndarray, params: AffineParams) -> np.ndarray:
    """float32 values of integers."""
    scale = params.broadcast(params.scale, q.ndim)
    zero = params.broadcast(params.zero_point, q.ndim)
    return np.asarray((q.astype(np.int64) - zero) * scale.astype(np.float64), np.float32)


def asymmetric_params(low: float, high: float, dtype: DType = DType.INT8) -> AffineParams:
    """Per-tensor parameters whose range covers `[low, high]` and represents zero exactly.

    `scale = (high - low) / (q_max - q_min)` after both ends are moved to include 0; `zero_point = round(q_min - low /
    scale)`, which is `q_min` exactly where `low` is 0, so that a rectified tensor needs no clipping of its own. A
    tensor of zeros covers [0, 1]: beside a much coarser scale, kernels lose what is added to it.
    """
    q_min, q_max = _bounds(dtype)
    low, high = min(low, 0.0), max(high, 0.0)
    high = high if high > low else 1.0
    scale = np.float32(max((high - low) / (q_max - q_min), _TINY))
    zero = int(np.clip(np.rint(q_min - low / float(scale)), q_min, q_max))
    return AffineParams(dtype, np.asarray(scale), np.asarray(zero), None, q_min, q_max)


def symmetric_params(
    bound: np.ndarray, dtype: DType = DType.INT8, axis: int | None = None, bits: int | None = None
) -> AffineParams:
    """Parameters with zero point 0 for values within `±bound`; the lowest integer is never used (int8: -128).

    `bits` leaves the dtype as it is and uses only the integers that so many bits hold.
    """
    q_max = largest_integer(dtype, bits)
    scale = np.maximum(np.asarray(bound, np.float64) / q_max, _TINY).astype(np.float32)
    scale = np.where(np.asarray(bound) > 0, scale, np.float32(1.0))
    return AffineParams(dtype, scale, np.zeros_like(scale, np.int64), axis, -q_max, q_max)


def block_params(bound: np.ndarray, block: int, dtype: DType = DType.INT4, bits: int | None = None) -> AffineParams:
    """Parameters for a weight whose blocks of `block` inputs lie within `±bound (O, K / block)`.

    Scales have 8 significant bits, so that every kernel computes with the same ones, whatever it keeps them as.
    """
    q_max = largest_integer(dtype, bits)
    least = np.clip(np.asarray(bound, np.float64) / q_max, LEAST_BLOCK_SCALE, MOST_BLOCK_SCALE)
    exact = least.astype(np.float32)
    exact = np.where(exact < least, np.nextafter(exact, np.float32(np.inf)), exact)
    scale = np.where(np.asarray(bound) > 0, _bfloat16(exact), np.float32(1.0))
    return AffineParams(dtype, scale, np.asarray(0), 0, -q_max, q_max, block)


def bias_params(source: AffineParams, weight: AffineParams) -> AffineParams:
    """Integers at scale `s_in * s_w`, zero point 0: what the accumulator holds.

    int32, or int64 beside int16 activations, whose kernels read nothing else; the integers fit int32 in both.
    """
    dtype = DType.INT64 if source.dtype is DType.INT16 else DType.INT32
    scale = np.maximum(source.scale.reshape(()) * weight.scale, np.float32(_TINY))
    low, high = _bounds(DType.INT32)
    return AffineParams(dtype, scale, np.zeros_like(scale, np.int64), None if weight.axis is None else 0, low, high)


def _bfloat16(scale: np.ndarray) -> np.ndarray:
    """float32 numbers raised to the next of 8 significant bits."""
    bits = np.ascontiguousarray(scale, np.float32).view(np.uint32)
    raised: np.ndarray = ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
    return raised


def largest_integer(dtype: DType, bits: int | None = None) -> int:
    """What a symmetric tensor of `dtype`, or of fewer `bits`, reaches on both sides of zero."""
    largest = _bounds(dtype)[1]
    return largest if bits is None else min(largest, 2 ** (bits - 1) - 1)


def half(real: np.ndarray) -> np.ndarray:
    """float16 values nearest to `real`; what is not zero stays not zero, as an epsilon may guard a division.

    Raises ValueError where a value is beyond float16, which ends at 65504.
    """
    with np.errstate(over="ignore"):
        rounded: np.ndarray = np.asarray(real).astype(np.float16)
    if not np.array_equal(np.isfinite(rounded), np.isfinite(real)):
        raise ValueError(f"a value of {float(np.abs(real).max()):.3g} is beyond float16, which ends at 65504")
    vanished = (rounded == 0) & (real != 0)
    if vanished.any():
        smallest = np.finfo(np.float16).smallest_subnormal
        rounded = np.where(vanished, np.copysign(smallest, real), rounded).astype(np.float16)
    return rounded


def pack_int4(values: np.ndarray) -> np.ndarray:
    """int4 values, held as int8, two a byte: the first of a pair in the low half."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    padded = np.append(flat, np.uint8(0)) if len(flat) % 2 else flat
    packed: np.ndarray = (padded[::2] & 15) | (padded[1::2] << 4)
    return packed


def unpack_int4(packed: np.ndarray, count: int) -> np.ndarray:
    """`count` int4 values, as int8, of bytes that `pack_int4` gave."""
    low, high = (packed << 4).view(np.int8) >> 4, packed.view(np.int8) >> 4
    values: np.ndarray = np.stack([low, high], axis=1).reshape(-1)[:count]
    return values


def _bounds(dtype: DType) -> tuple[int, int]:
    if dtype is DType.INT4:
        return -8, 7
    limits = np.iinfo(dtype.numpy)
    return int(limits.min), int(limits.max)
