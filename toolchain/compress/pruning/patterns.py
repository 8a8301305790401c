"""Patterns of zeros that kernels can skip: N:M within the input channels, and blocks.

    "2:4"     of every 4 input channels in a row each output channel keeps the 2 best       arXiv 2104.08378
    "1x4"     blocks of 1 output channel and 4 input channels in a row go or stay as one
    "4x1"     blocks of 4 output channels and 1 input channel, as XNNPACK's sparse kernels read them
    "8x*"     8 whole output channels in a row go or stay as one

A weight `(O, I, kh, kw)` is looked at as `(O, I)` at each place of its kernel; "8x*" takes all places together. A
block's score is the root of the sum of squares of its weights'. What is left over at the end of an axis is a smaller
block; N:M leaves a smaller run alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_FINE = re.compile(r"([1-9]\d*):([1-9]\d*)")
_BLOCK = re.compile(r"([1-9]\d*)x([1-9]\d*|\*)")


@dataclass(frozen=True)
class Pattern:
    """`kept` of each `run` input channels; or, where `kept` is None, blocks of `rows` outputs and `columns` inputs
    (None: all). A single weight is a block of 1 x 1."""

    text: str = ""
    kept: int | None = None
    run: int = 1
    rows: int = 1
    columns: int | None = 1

    @property
    def is_fine(self) -> bool:
        """Whether the pattern fixes the share of zeros."""
        return self.kept is not None

    @property
    def ratio(self) -> float:
        """The share that N:M takes away."""
        return 1 - (self.kept or 0) / self.run


SINGLE = Pattern()


def parse_pattern(text: str) -> Pattern | None:
    """The pattern that `text` names; None where it names none."""
    if found := _FINE.fullmatch(text):
        kept, run = map(int, found.groups())
        return Pattern(text, kept=kept, run=run) if kept < run else None
    if found := _BLOCK.fullmatch(text):
        rows, columns = found.groups()
        return Pattern(text, rows=int(rows), columns=None if columns == "*" else int(columns))
    return None


def block_scores(scores: np.ndarray, pattern: Pattern) -> np.ndarray:
    """One score a block, `(blocks of outputs, blocks of inputs, places)`; of blocks of one the scores themselves."""
    squares = np.square(_flat(scores, pattern))
    rows = np.add.reduceat(squares, np.arange(0, squares.shape[0], pattern.rows), axis=0)
    columns = pattern.columns or squares.shape[1]
    return np.sqrt(np.add.reduceat(rows, np.arange(0, squares.shape[1], columns), axis=1))


def block_mask(kept: np.ndarray, shape: tuple[int, ...], pattern: Pattern) -> np.ndarray:
    """Mask of the weight's shape from which blocks are kept."""
    flat = _flat(np.empty(shape, bool), pattern).shape
    rows = np.repeat(kept, pattern.rows, axis=0)[: flat[0]]
    columns = np.repeat(rows, pattern.columns or flat[1], axis=1)[:, : flat[1]]
    return np.broadcast_to(columns, flat).reshape(shape)


def fine_mask(scores: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Mask that keeps the N best of every M input channels in a row; of equals the first go."""
    assert pattern.kept is not None
    flat = _flat(scores, pattern)
    whole = flat.shape[1] // pattern.run * pattern.run
    runs = flat[:, :whole].reshape(len(flat), -1, pattern.run, flat.shape[2])
    order = np.argsort(np.argsort(runs, axis=2, kind="stable"), axis=2, kind="stable")
    mask = np.ones(flat.shape, bool)
    mask[:, :whole] = (order >= pattern.run - pattern.kept).reshape(len(flat), whole, flat.shape[2])
    return mask.reshape(scores.shape)


def _flat(array: np.ndarray, pattern: Pattern) -> np.ndarray:
    """`(O, I, places)`; with whole output channels `(O, I * places, 1)`."""
    if pattern.columns is None:
        return array.reshape(len(array), -1, 1)
    return array.reshape(*array.shape[:2], -1)
