"""Physical layouts: how a tensor of the graph, logical and `(N, C, H, W)`, lies in a TFLite file.

A layout is a permutation of the logical axes, `physical axis i = logical axis order[i]`; channels last is
`(0, 2, 3, 1)`. A tensor that was flattened while channels last may carry the order of its elements along the
flattened axis as well (`Flattened`), so that the linear layer that reads it permutes its weights and no
TRANSPOSE is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from toolchain.errors import UnsupportedError

Shape: TypeAlias = tuple[int, ...]
Atom: TypeAlias = tuple[int, int]
"""(logical axis, factor of it): the unit that a move permutes."""


@dataclass(frozen=True)
class Flattened:
    """Logical `axis` is the product of axes of sizes `shape`, stored in the order `order`."""

    axis: int
    shape: Shape
    order: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The order of a tensor's axes in the file and, rarely, the order along one flattened axis."""

    order: tuple[int, ...]
    flattened: Flattened | None = None

    @property
    def rank(self) -> int:
        return len(self.order)

    def plain(self) -> Layout:
        return Layout(self.order)

    def axis(self, logical: int) -> int:
        """The physical axis that holds the logical one."""
        return self.order.index(logical)

    def shape(self, logical: Sequence[int]) -> Shape:
        return tuple(logical[axis] for axis in self.order)

    def fits(self, physical: Sequence[int]) -> bool:
        """Whether a tensor of the file of shape `physical` can lie so."""
        if len(physical) != self.rank:
            return False
        return self.flattened is None or prod(self.flattened.shape) == physical[self.axis(self.flattened.axis)]

    def fitted(self, shape: Sequence[int]) -> Layout:
        """This layout for an operand of `shape`, which may be broadcast along the flattened axis."""
        kept = self.flattened is not None and shape[self.flattened.axis] > 1
        return self if kept else self.plain()

    def expanded(self, rank: int) -> Layout:
        """The layout after leading axes of size 1 are added up to `rank`."""
        more, flat = rank - self.rank, self.flattened
        shifted = Flattened(flat.axis + more, flat.shape, flat.order) if flat else None
        return Layout((*range(more), *(axis + more for axis in self.order)), shifted)

    def to_physical(self, logical: np.ndarray) -> np.ndarray:
        if flat := self.flattened:
            logical = _reordered(logical, flat.axis, flat.shape, flat.order)
        return np.asarray(logical.transpose(self.order), order="C")

    def to_logical(self, physical: np.ndarray) -> np.ndarray:
        logical = physical.transpose(np.argsort(self.order))
        if flat := self.flattened:
            stored = tuple(flat.shape[factor] for factor in flat.order)
            logical = _reordered(logical, flat.axis, stored, tuple(int(i) for i in np.argsort(flat.order)))
        return np.asarray(logical, order="C")

    def to_plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"order": list(self.order)}
        if flat := self.flattened:
            plain["flattened"] = {"axis": flat.axis, "shape": list(flat.shape), "order": list(flat.order)}
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Layout:
        """Raises ValueError, KeyError or TypeError where `plain` describes no layout."""
        flat, order = plain.get("flattened"), _permutation(plain["order"])
        if flat is None:
            return cls(order)
        flattened = Flattened(int(flat["axis"]), tuple(map(int, flat["shape"])), _permutation(flat["order"]))
        if flattened.axis not in order or len(flattened.shape) != len(flattened.order):
            raise ValueError(f"{flat} does not fit {order}")
        return cls(order, flattened)


MOST_PERMUTED = 6
"""Axes that the TRANSPOSE kernels permute."""

CHANNELS_LAST = Layout((0, 2, 3, 1))


def identity(rank: int) -> Layout:
    """The axes as torch has them."""
    return Layout(tuple(range(rank)))


def default_layout(rank: int) -> Layout:
    """What a tensor has where a file says nothing else: rank 4 channels last, any other as in torch."""
    return CHANNELS_LAST if rank == 4 else identity(rank)


@dataclass(frozen=True)
class Move:
    """One op of a change of layout: TRANSPOSE by `permutation`, or RESHAPE where it is None, to `shape`."""

    shape: Shape
    permutation: tuple[int, ...] | None = None


def plan_moves(source: Layout, target: Layout, shape: Sequence[int]) -> list[Move]:
    """The fewest moves between two layouts of a tensor of logical `shape`; none where the bytes are alike."""
    if source.flattened and target.flattened and source.flattened != target.flattened:
        return [*plan_moves(source, source.plain(), shape), *plan_moves(source.plain(), target, shape)]
    flat = source.flattened or target.flattened
    sizes = _atom_sizes(shape, flat)
    have, want = _atoms(source, flat), _atoms(target, flat)
    moves: list[Move] = []
    current = source.shape(shape)
    if [atom for atom in have if sizes[atom] != 1] != [atom for atom in want if sizes[atom] != 1]:
        split, permutation = _permutation_of(have, want, sizes)
        if split != current:
            moves.append(Move(split))
        current = tuple(split[axis] for axis in permutation)
        moves.append(Move(current, permutation))
    if current != target.shape(shape):
        moves.append(Move(target.shape(shape)))
    return moves


def _permutation_of(have: list[Atom], want: list[Atom], sizes: Mapping[Atom, int]) -> tuple[Shape, tuple[int, ...]]:
    """Shape to permute and the permutation; where the atoms are more than a kernel has axes, those that stay neighbours
    are one axis, and those of size 1 none."""
    if len(have) <= MOST_PERMUTED:
        return tuple(sizes[atom] for atom in have), tuple(have.index(atom) for atom in want)
    have, want = ([atom for atom in atoms if sizes[atom] != 1] for atoms in (have, want))
    runs: list[list[Atom]] = []
    for atom in have:
        if runs and want.index(atom) == want.index(runs[-1][-1]) + 1:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    if len(runs) > MOST_PERMUTED:
        raise UnsupportedError(
            f"a permute of {len(runs)} axes; TFLite's kernels permute {MOST_PERMUTED} at most",
            hint="permute in two steps, with a reshape between them",
        )
    order = sorted(range(len(runs)), key=lambda run: want.index(runs[run][0]))
    return tuple(prod(sizes[atom] for atom in run) for run in runs), tuple(order)


def _atom_sizes(shape: Sequence[int], flat: Flattened | None) -> dict[Atom, int]:
    sizes = {(axis, 0): size for axis, size in enumerate(shape)}
    if flat:
        sizes |= {(flat.axis, factor): size for factor, size in enumerate(flat.shape)}
    return sizes


def _atoms(layout: Layout, flat: Flattened | None) -> list[Atom]:
    atoms: list[Atom] = []
    for axis in layout.order:
        if flat is None or axis != flat.axis:
            atoms.append((axis, 0))
        else:
            order = layout.flattened.order if layout.flattened else range(len(flat.shape))
            atoms += [(axis, factor) for factor in order]
    return atoms


def _reordered(array: np.ndarray, axis: int, factors: Shape, order: tuple[int, ...]) -> np.ndarray:
    """Split `axis` into `factors`, permute those by `order` and merge them again."""
    if prod(factors) != array.shape[axis]:
        raise ValueError(f"an axis of {array.shape[axis]} is not the product of {factors}")
    split = array.reshape(*array.shape[:axis], *factors, *array.shape[axis + 1 :])
    after = range(axis + len(factors), split.ndim)
    moved = split.transpose(*range(axis), *(axis + factor for factor in order), *after)
    return moved.reshape(array.shape)


def _permutation(values: Sequence[int]) -> tuple[int, ...]:
    order = tuple(map(int, values))
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"{values} is not a permutation")
    return order
