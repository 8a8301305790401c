"""What compression has fixed about a constant, carried from the stage that made it through to the bytes.

A **mask** says which weights are zero for good; a **codebook** says that a weight tensor takes few distinct values,
`weight = values[indices]`. Both are keyed by the constant's name and survive folding, quantization and recovery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True)
class Codebook:
    """`values (k,)` float32 and `indices` uint8, of the weight's shape."""

    values: np.ndarray
    indices: np.ndarray

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
            if name in constants and (distinct := len(np.unique(constants[name]))) > len(book.values):
                found.append(f"{name}: {distinct} distinct weights, but its codebook has {len(book.values)}")
        return found
