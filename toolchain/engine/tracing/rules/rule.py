"""What the rules have in common.

A rule takes the builder and the op's arguments, tensors given as names, and returns the name of its result (a list of
names for ops with several results). It raises CannotLower where the arguments ask for what the graph cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from toolchain.graph import DType, Op

Rule: TypeAlias = Callable[..., str | list[str]]
Pair: TypeAlias = tuple[int, int]


def pair(value: int | Sequence[int]) -> Pair:
    """A value an axis, (height, width), from one for both or one each."""
    values = [value] if isinstance(value, int) else list(value)
    return (int(values[0]), int(values[-1]))


def axis_of(axis: int, rank: int) -> int:
    """`axis` counted from the first."""
    return axis % rank if rank else 0


def both_sides(padding: Pair) -> tuple[int, int, int, int]:
    """(top, left, bottom, right)."""
    return (padding[0], padding[1], padding[0], padding[1])


def plain(op: Op) -> Rule:
    """The rule of an op that the graph has under its own name, one tensor in."""
    return lambda b, x: b.add(op, x)


def real(op: Op) -> Rule:
    """The rule of a function of one tensor that takes integers for reals."""
    return lambda b, x: b.add(op, b.cast(x, DType.FLOAT32))
