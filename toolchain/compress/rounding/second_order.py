"""Rounding by the second order: the integers that make a quadratic form small, layer by layer.

For weights W* (O, K), scales s and H (K, K), rows d of D = s q are to make `(d - w*) H (d - w*)^T` small.

* Sequential rounding with error feedback (Frantar et al., GPTQ, arXiv 2210.17323; Frantar & Alistarh, OBQ, 2208.11580):
  with `H^-1 = U^T U`, column k is rounded and what that costs is taken out of the columns still to come,
  `w_j -= (w_k - d_k) U_kj / U_kk`; columns of much energy first.
* Coordinate descent: column k alone is best at `q_k = round(d_k / s - r_k / (s H_kk))`, `r = (d - w*) H`; columns in
turn
  until no integer moves, which can only improve.
* Scales: both are done for a row of scales, and each output channel takes what suits it.

W* is the float optimum for the inputs that the quantized layer meets, the asymmetric target of AdaRound (Nagel et al.,
2004.10568, section 3.4) and GPTAQ (Li et al., 2504.02692). Everything is batched over groups and output channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolchain.compress.rounding.moments import Form

DAMPING = 3.0
"""Added to the diagonal of H where integers are chosen, as a share of its mean: what rounding must not lean on."""

DAMPINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""What is tried: damping added to the diagonal of H, as a share of its mean, and the share of the way from the float
weights to W* that the target goes."""

_TOLERANCE = 0.02

_BLOCK = 64
_SWEEPS = 30


@dataclass(frozen=True)
class Grid:
    """Integers `low` to `high` at `scale`, (G, O) or, where inputs have scales of their own, (G, O, K); where `kept`
    (G, O, K) is False the integer stays 0."""

    scale: Tensor
    low: int
    high: int
    kept: Tensor | None = None

    def nearest(self, values: Tensor) -> Tensor:
        """Integers, as floats, nearest to `values` (G, O, K)."""
        q = torch.clamp(torch.round(values / spread(self.scale)), self.low, self.high)
        return q if self.kept is None else q * self.kept


def spread(scale: Tensor) -> Tensor:
    """Scales, (G, O) or (G, O, K), that multiply (G, O, K)."""
    return scale if scale.ndim == 3 else scale[..., None]


@dataclass(frozen=True)
class Objective:
    """`target` W* (G, O, K) and the damped H (G, K, K)."""

    target: Tensor
    square: Tensor

    @classmethod
    def of(cls, real: Tensor, form: Form, damping: float, share: float) -> Objective:
        """`real` (G, O, K) are the float weights. The target lies `share` of the way from them to their optimum at
        `damping`."""
        target = real
        if share:
            wanted = real @ (form.cross.transpose(1, 2) - form.square)
            moved = torch.linalg.solve(_damped(form.square, damping), wanted.transpose(1, 2)).transpose(1, 2)
            target = real + share * moved
        return cls(target, _damped(form.square, DAMPING))

    def loss(self, integers: Tensor, grid: Grid) -> Tensor:
        """(G, O): the quadratic form at `grid.scale * integers`."""
        off = integers * spread(grid.scale) - self.target
        return ((off @ self.square) * off).sum(-1)


def choose_damping(real: Tensor, folds: tuple[Form, Form]) -> tuple[float, float]:
    """The damping and the share of the target that do best on samples they were not fitted to: each fold's float
    optimum is judged by the other's moments. Of those within 2 % of the best, the most cautious."""
    errors = torch.zeros(len(DAMPINGS), len(SHARES), dtype=torch.float64)
    shares = torch.tensor(SHARES, dtype=torch.float64)
    for fitted, judge in (folds, folds[::-1]):
        step = (real @ (fitted.cross.transpose(1, 2) - fitted.square)).transpose(1, 2)
        slope = real @ (judge.square - judge.cross.transpose(1, 2))
        start = float(judge.error(real, real).sum()) + judge.power
        for row, damping in enumerate(DAMPINGS):
            factor, failed = torch.linalg.cholesky_ex(_damped(fitted.square, damping))
            if failed.any():
                errors[row] = torch.inf
                continue
            moved = torch.cholesky_solve(step, factor).transpose(1, 2)
            linear, square = 2 * float((moved * slope).sum()), float(((moved @ judge.square) * moved).sum())
            errors[row] += start + shares * linear + shares**2 * square
    near = errors <= errors.min() + _TOLERANCE * errors.min().abs()
    cautious = [(row, column) for column in reversed(range(len(SHARES))) for row in reversed(range(len(DAMPINGS)))]
    row, column = next(place for place in cautious if near[place])
    return DAMPINGS[row], SHARES[column]


def _damped(square: Tensor, damping: float) -> Tensor:
    diagonal = square.diagonal(dim1=1, dim2=2)
    added = damping * diagonal.mean(1, keepdim=True) + 1e-9 * diagonal.amax() + 1e-300
    return square + torch.diag_embed(added.expand_as(diagonal))


def round_sequentially(objective: Objective, grid: Grid) -> Tensor:
    """Integers (G, O, K) as floats, by error feedback."""
    order = objective.square.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    turned = _permuted(objective.square, order)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(turned))
    upper = torch.linalg.cholesky(inverse, upper=True)
    index = order[:, None, :].expand_as(objective.target)
    left = objective.target.gather(2, index)
    kept = None if grid.kept is None else grid.kept.gather(2, index)
    scale = spread(grid.scale).expand_as(left).gather(2, index)
    found = torch.empty_like(left)
    for start in range(0, left.shape[2], _BLOCK):
        block = slice(start, min(start + _BLOCK, left.shape[2]))
        errors = torch.empty_like(left[:, :, block])
        for k in range(block.start, block.stop):
            q = torch.clamp(torch.round(left[:, :, k] / scale[:, :, k]), grid.low, grid.high)
            found[:, :, k] = q if kept is None else q * kept[:, :, k]
            error = (left[:, :, k] - found[:, :, k] * scale[:, :, k]) / upper[:, k, k, None]
            left[:, :, k : block.stop] -= error[:, :, None] * upper[:, None, k, k : block.stop]
            errors[:, :, k - block.start] = error
        left[:, :, block.stop :] -= errors @ upper[:, block, block.stop :]
    return torch.empty_like(found).scatter_(2, index, found)


def descend(objective: Objective, grid: Grid, integers: Tensor) -> Tensor:
    """Integers (G, O, K) of which none alone can move to make the form smaller."""
    square, scale = objective.square, spread(grid.scale).expand_as(integers)
    found = integers.clone()
    residual = (found * scale - objective.target) @ square
    for _ in range(_SWEEPS):
        changed = False
        for start in range(0, found.shape[2], _BLOCK):
            block = slice(start, min(start + _BLOCK, found.shape[2]))
            moves = _descend_block(objective, grid, found, residual, block)
            if moves is not None:
                changed = True
                residual += (moves * scale[:, :, block]) @ square[:, block]
        if not changed:
            break
    return found


def _descend_block(objective: Objective, grid: Grid, found: Tensor, residual: Tensor, block: slice) -> Tensor | None:
    """Move the integers of a block of columns, each once; what they moved by, None where none did."""
    square = objective.square[:, block, block]
    local, before = residual[:, :, block].clone(), found[:, :, block].clone()
    scales = spread(grid.scale).expand_as(found)[:, :, block]
    for k in range(block.stop - block.start):
        now = found[:, :, block.start + k]
        own = square[:, k, k, None] * scales[:, :, k]
        # a tie between two integers must not move back and forth
        step = torch.round(-local[:, :, k] / own * (1 - 1e-9))
        new = torch.clamp(now + step, grid.low, grid.high)
        if grid.kept is not None:
            new = new * grid.kept[:, :, block.start + k]
        moved = new - now
        if moved.any():
            found[:, :, block.start + k] = new
            local += (moved * scales[:, :, k])[:, :, None] * square[:, None, k]
    moves = found[:, :, block] - before
    return moves if moves.any() else None


@dataclass(frozen=True)
class Rounded:
    """`integers` (G, O, K) as floats at `scale`, (G, O) or (G, O, K)."""

    integers: Tensor
    scale: Tensor

    @property
    def values(self) -> Tensor:
        return self.integers * spread(self.scale)


def round_matrix(objective: Objective, grid: Grid, start: Tensor | None = None) -> Rounded:
    """The best integers found at the grid's own scales: from error feedback, and from `start` where it is given."""
    found = descend(objective, grid, round_sequentially(objective, grid))
    if start is not None:
        found = _better(objective, grid, found, descend(objective, grid, start))
    return Rounded(found, grid.scale)


def round_with_scales(
    objective: Objective, grid: Grid, ratios: tuple[float, ...], least: Tensor, shared: bool
) -> Rounded:
    """The best integers over scales `ratio * grid.scale`, none below `least` (G, O), each channel for itself or, where
    the scale is `shared`, all together."""
    best: Rounded | None = None
    best_loss = torch.zeros(())
    for ratio in ratios:
        tried = replace(grid, scale=torch.maximum(grid.scale * ratio, least).float().double())
        found = round_sequentially(objective, tried)
        loss = objective.loss(found, tried)
        if best is None:
            best, best_loss = Rounded(found, tried.scale), loss
            continue
        is_better = (loss.sum() < best_loss.sum()).expand_as(loss) if shared else loss < best_loss
        best = Rounded(
            torch.where(is_better[..., None], found, best.integers), torch.where(is_better, tried.scale, best.scale)
        )
        best_loss = torch.where(is_better, loss, best_loss)
    assert best is not None
    return Rounded(descend(objective, replace(grid, scale=best.scale), best.integers), best.scale)


def _better(objective: Objective, grid: Grid, one: Tensor, other: Tensor) -> Tensor:
    is_better = objective.loss(other, grid) < objective.loss(one, grid)
    return torch.where(is_better[..., None], other, one)


def _permuted(square: Tensor, order: Tensor) -> Tensor:
    rows = square.gather(1, order[:, :, None].expand_as(square))
    return rows.gather(2, order[:, None, :].expand_as(square))
