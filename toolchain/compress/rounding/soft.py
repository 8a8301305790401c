"""Soft integers that gradient descent hardens (AdaRound: Nagel et al., arXiv 2004.10568, section 3.2):

    w~ = s (base + h(V)),      h(V) = clip(sigmoid(V) (zeta - gamma) + gamma, 0, 1),      zeta = 1.1, gamma = -0.1,
    regulariser = mean over weights of 1 - |2 h(V) - 1|^beta,      beta falling from 20 to 2

`base` is the lower of the two integers to choose from, h starts between them: on the side of the integer that is held,
and the nearer to 1/2 the nearer the float weight is to the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toolchain.quantization import AffineParams

_ZETA, _GAMMA = 1.1, -0.1
_BETA_START, _BETA_END = 20.0, 2.0
_SURE = 0.6  # of h at the start: how much is the integer held, the rest the float weight
_EDGE = 1e-4


@dataclass(frozen=True)
class SoftWeight:
    """`base` and `logits` V of the weight's shape, `scale` shaped to multiply it; True in `free` may be learned."""

    base: Tensor
    logits: Tensor
    scale: Tensor
    free: Tensor

    @classmethod
    def of(cls, weight: np.ndarray, integers: np.ndarray, params: AffineParams, kept: np.ndarray | None) -> SoftWeight:
        """Between the integers held and their neighbours towards the float weight."""
        scale = params.broadcast(params.scale, weight.ndim).astype(np.float64)
        place, held = weight / scale, integers.astype(np.float64)
        base = np.clip(held - (place < held), params.q_min, params.q_max - 1)
        soft = _SURE * (held - base) + (1 - _SURE) * np.clip(place - base, 0.0, 1.0)
        share = np.clip((soft - _GAMMA) / (_ZETA - _GAMMA), _EDGE, 1 - _EDGE)
        free = np.ones(weight.shape, bool) if kept is None else kept
        logits = torch.from_numpy(np.log(share / (1 - share)).astype(np.float32)).requires_grad_()
        held_down = torch.from_numpy(np.where(free, base, 0).astype(np.float32))
        return cls(held_down, logits, torch.from_numpy(np.asarray(scale, np.float32)), torch.from_numpy(free))

    def share(self) -> Tensor:
        """h(V), zero where nothing may be learned."""
        return torch.clamp(torch.sigmoid(self.logits) * (_ZETA - _GAMMA) + _GAMMA, 0.0, 1.0) * self.free

    def values(self) -> Tensor:
        """The soft weight."""
        return (self.base + self.share()) * self.scale

    def integers(self) -> np.ndarray:
        """The integers it hardens to."""
        with torch.no_grad():
            hard: np.ndarray = (self.base + (self.share() >= 0.5)).to(torch.int64).numpy()
        return hard

    def softness(self, beta: float) -> Tensor:
        """The regulariser, a scalar: 0 where every weight is an integer."""
        return (self.free * (1 - (2 * self.share() - 1).abs().pow(beta))).sum() / self.free.sum().clamp_min(1)


def beta_at(progress: float) -> float:
    """beta after a share `progress` of the annealing."""
    return _BETA_END + (_BETA_START - _BETA_END) * 0.5 * (1 + float(np.cos(np.pi * min(max(progress, 0.0), 1.0))))
