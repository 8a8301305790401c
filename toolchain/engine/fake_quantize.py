"""Rounding to a grid with a gradient, for training.

    y = s (clip(round(x / s) + z, q_min, q_max) - z)

The gradient in x is that of the clip (straight-through, Bengio et al., arXiv 1308.3432). A learned step size (LSQ,
Esser et al., arXiv 1902.08153) has, with n = clip(round(x / s) + z) - z,

    dy/ds = n - x / s   inside the clip,      n   outside,

so that sum g dy/ds = (sum g y - sum g_x x) / s, which takes two dot products. Steps are learned as factors, s = s0 e^t:
they stay positive, and a learning rate is relative, for weights as small and activations as large as they come. LSQ's
factor 1 / sqrt(N q_max) keeps a step's relative update near those of what it scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.quantization import AffineParams
from toolchain.quantization.affine import LEAST_BLOCK_SCALE, MOST_BLOCK_SCALE


def fake_quantize(value: Tensor, params: AffineParams) -> Tensor:
    """`value` rounded to the grid of per-tensor `params`, in its own float type."""
    bounds = _Bounds.of(params, float(params.scale.max()))
    if torch.is_grad_enabled() and value.requires_grad:
        return _StraightThrough.apply(value, bounds)  # type: ignore[no-any-return, no-untyped-call]
    return _rounded(value, bounds)


def fake_weight(weight: Tensor, scale: Tensor, params: AffineParams) -> Tensor:
    """`weight` rounded to the symmetric integers of `params` at `scale`, (), (C,) or (O, blocks)."""
    if params.block is not None:
        rows, flat = weight.reshape(-1, params.block), scale.reshape(-1)
        zeros = torch.zeros_like(flat, dtype=torch.int32)
        found = torch.fake_quantize_per_channel_affine(rows, flat, zeros, 0, params.q_min, params.q_max)
        return found.reshape(weight.shape)
    if params.axis is None:
        return torch.fake_quantize_per_tensor_affine(weight, float(scale), 0, params.q_min, params.q_max)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, params.axis, params.q_min, params.q_max)


def block_scales(weight: Tensor, params: AffineParams) -> Tensor:
    """Scales (O, blocks) of the present `weight (O, K)`, as `quantization.affine.block_params` has them: of 8
    significant bits, rounded up."""
    assert params.block is not None
    sizes = weight.detach().float().abs().reshape(len(weight), -1, params.block).amax(2)
    own = (sizes / params.q_max).clamp(LEAST_BLOCK_SCALE, MOST_BLOCK_SCALE)
    return torch.bitwise_and(own.view(torch.int32) + 0xFFFF, -0x10000).view(torch.float32)


def learned_activation(value: Tensor, scale: Tensor, params: AffineParams) -> Tensor:
    """`value (N, ...)` rounded at the learned `scale ()`, with the zero point of `params`."""
    count = max(value[0].numel() if value.ndim else 1, 1)
    return _PerTensor.apply(value, scale, params, 1 / sqrt(count * params.q_max))  # type: ignore[no-any-return, no-untyped-call]


def learned_weight(weight: Tensor, scale: Tensor, params: AffineParams) -> Tensor:
    """`weight` rounded at the learned `scale`, () or (C,), to the symmetric integers of `params`."""
    count = weight.numel() / scale.numel()
    kind = _PerTensor if params.axis is None else _PerChannel
    return kind.apply(weight, scale, params, 1 / sqrt(count * params.q_max))  # type: ignore[no-any-return, no-untyped-call]


@dataclass(frozen=True)
class _Bounds:
    """A scale, and the integers that it reaches on both sides of zero: q - z."""

    scale: float
    least: int
    most: int

    @classmethod
    def of(cls, params: AffineParams, scale: float) -> _Bounds:
        zero = int(params.zero_point.flat[0])
        return cls(scale, params.q_min - zero, params.q_max - zero)


def _rounded(x: Tensor, bounds: _Bounds) -> Tensor:
    # in place on one new tensor: torch's own kernel, which keeps a mask as well, takes several times as long
    return torch.div(x, bounds.scale).round_().clamp_(bounds.least, bounds.most).mul_(bounds.scale)


def _passed(gradient: Tensor, x: Tensor, bounds: _Bounds) -> Tensor:
    """The gradient of what is not clipped; the ends round to the outermost integers, and are not."""
    low, high = bounds.scale * (bounds.least - 0.5), bounds.scale * (bounds.most + 0.5)
    return torch.ops.aten.hardtanh_backward(gradient, x, low, high)  # type: ignore[no-any-return]


class _StraightThrough(torch.autograd.Function):
    """Rounding at a scale that stays."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bounds: _Bounds) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = bounds
        return _rounded(x, bounds)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _passed(gradients[0], ctx.saved_tensors[0], ctx.bounds), None


class _PerTensor(torch.autograd.Function):
    """Rounding at one learned scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, params: AffineParams, factor: float) -> Tensor:
        ctx.bounds, ctx.factor = _Bounds.of(params, float(scale)), factor
        y = _rounded(x, ctx.bounds)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, y) = gradients, ctx.saved_tensors
        passed = _passed(gradient, x, ctx.bounds)
        return passed, (_dot(gradient, y) - _dot(passed, x)) * (ctx.factor / ctx.bounds.scale), None, None


class _PerChannel(torch.autograd.Function):
    """A learned step for each channel of an axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, params: AffineParams, factor: float) -> Tensor:
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        y, mask = torch.ops.aten.fake_quantize_per_channel_affine_cachemask(
            x, scale.detach(), zeros, params.axis, params.q_min, params.q_max
        )
        ctx.save_for_backward(x, y, mask, scale)
        ctx.axis, ctx.factor = params.axis, factor
        return y  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, y, mask, scale) = gradients, ctx.saved_tensors
        passed = gradient * mask
        others = [axis for axis in range(x.ndim) if axis != ctx.axis]
        moved = (gradient * y - passed * x).sum(others)
        return passed, moved / scale * ctx.factor, None, None


def _dot(left: Tensor, right: Tensor) -> Tensor:
    if left.is_contiguous() and right.is_contiguous():
        return torch.dot(left.reshape(-1), right.reshape(-1))
    return (left * right).sum()


_MOST_LOG = log(16)
"""A scale stays within 16 times and a 16th of where it started: a rate that is far too high makes no zeros."""


class StepSizes(nn.Module):
    """Learned scales by name: names of one group share a scale, (C,) or (), in float32.

    Parameters: the logarithm of each scale's factor over where it started, all in one vector. `least` maps a group to
    (another group, factor): its scale is never below so much of the other's.
    """

    def __init__(self, started: Mapping[str, np.ndarray], least: Mapping[str, tuple[str, float]]) -> None:
        super().__init__()
        self._sizes = [int(scale.size) for scale in started.values()]
        self._shapes = [scale.shape for scale in started.values()]
        self._names = list(started)
        self._least = dict(least)
        flat = [np.asarray(scale, np.float32).reshape(-1) for scale in started.values()]
        self.started = torch.from_numpy(np.concatenate(flat) if flat else np.zeros(0, np.float32))
        self.factors = nn.Parameter(torch.zeros_like(self.started))

    def forward(self) -> dict[str, Tensor]:
        """The present scales by group."""
        # a plain tensor, since a state_dict is to hold what is trained; it follows the factors to their device
        self.started = self.started.to(self.factors.device)
        flat = self.started * _Exponential.apply(self.factors, self.started)  # type: ignore[no-untyped-call]
        parts = torch.split(flat, self._sizes)
        scales = {name: part.reshape(shape) for name, part, shape in zip(self._names, parts, self._shapes, strict=True)}
        for name, (other, factor) in self._least.items():
            scales[name] = torch.maximum(scales[name], scales[other] * factor)
        return scales


class _Exponential(torch.autograd.Function):
    """e^t, whose gradient is divided by s0^2: to first order a step of plain gradient descent on t changes s by what
    it would on s itself, relative to s."""

    @staticmethod
    def forward(ctx: Any, factors: Tensor, started: Tensor) -> Tensor:
        grown = factors.clamp(-_MOST_LOG, _MOST_LOG).exp()
        ctx.save_for_backward(grown, started)
        return grown

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grown, started = ctx.saved_tensors
        return gradients[0] * grown / started.square(), None
