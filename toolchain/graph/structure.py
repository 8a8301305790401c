"""What compression has fixed about a constant, carried from the stage that made it through to the bytes.

A **mask** says which weights are zero for good; a **codebook** says that a weight tensor takes few distinct values,
`weight = values[indices]`; a tensor may have several, for some output channels each, that lie one after the other. Both
are keyed by the constant's name and survive folding, quantization and recovery.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True)
class Codebook:
    """`values (n,)` float32 and `indices`, unsigned, of the weight's shape. `sizes` are how many of the values belong
    to each codebook, all to one where it is left out."""

    values: np.ndarray
    indices: np.ndarray
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes) or (len(self.values),))
        if sum(self.sizes) != len(self.values):
            raise ValueError(f"codebooks of {self.sizes} values, and {len(self.values)} values")

    @property
    def is_per_channel(self) -> bool:
        """Whether no two output channels (axis 0) share a codebook: then each may have a scale of its own."""
        rows = self.owners.reshape(len(self.indices), -1) if self.indices.size else np.zeros((1, 1), np.int64)
        alone = (rows == rows[:, :1]).all()
        return bool(alone) and len(np.unique(rows[:, 0])) == len(rows) and len(rows) > 1

    @property
    def owners(self) -> np.ndarray:
        """The codebook's number of each weight."""
        owners: np.ndarray = np.searchsorted(np.cumsum(self.sizes), self.indices, side="right")
        return owners

    def count_distinct(self, weight: np.ndarray) -> list[int]:
        """How many values `weight`, of the same shape, takes in each codebook."""
        if len(self.sizes) == 1:
            return [len(np.unique(weight))]
        pairs = np.unique(np.stack([self.owners.reshape(-1).astype(np.float64), weight.reshape(-1)]), axis=1)[0]
        found: list[int] = np.bincount(pairs.astype(np.int64), minlength=len(self.sizes)).tolist()
        return found

    def decode(self) -> np.ndarray:
        decoded: np.ndarray = self.values[self.indices]
        return decoded


@dataclass(frozen=True)
class Structure:
    """Masks (bool arrays, True = kept) and codebooks by constant name."""

    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    codebooks: Mapping[str, Codebook] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "masks", MappingProxyType(dict(self.masks)))
        object.__setattr__(self, "codebooks", MappingProxyType(dict(self.codebooks)))

    def __deepcopy__(self, memo: object) -> Structure:
        return self  # nothing of it changes

    def with_masks(self, masks: Mapping[str, np.ndarray]) -> Structure:
        return replace(self, masks={**self.masks, **masks})

    def with_codebooks(self, codebooks: Mapping[str, Codebook]) -> Structure:
        return replace(self, codebooks={**self.codebooks, **codebooks})

    def without_codebook(self, name: str) -> Structure:
        return replace(self, codebooks={key: book for key, book in self.codebooks.items() if key != name})

    def violations(self, constants: Mapping[str, np.ndarray]) -> list[str]:
        """One line for each mask or codebook that `constants` no longer obey (float or integer, symmetric)."""
        found = []
        for name, mask in self.masks.items():
            if name in constants and np.any(constants[name][~mask]):
                found.append(f"{name}: {np.count_nonzero(constants[name][~mask])} masked weights are not zero")
        for name, book in self.codebooks.items():
            if name in constants:
                found.extend(_outside(name, book, constants[name]))
        return found


def _outside(name: str, book: Codebook, weight: np.ndarray) -> Iterator[str]:
    for number, (count, size) in enumerate(zip(book.count_distinct(weight), book.sizes, strict=True)):
        if count > size:
            which = "its codebook" if len(book.sizes) == 1 else f"codebook {number}"
            yield f"{name}: {count} distinct weights, but {which} has {size}"
