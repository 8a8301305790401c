"""Connected components, of channels or of nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def connected(count: int, ties: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """For each of `count` labels the least label of its connected component.

    Every round each component hooks onto the least neighbouring root, then paths are halved until they are
    flat: O(log count) rounds of whole-array steps.
    """
    root = np.arange(count)
    if not ties:
        return root
    left = np.concatenate([a for a, _ in ties])
    right = np.concatenate([b for _, b in ties])
    while True:
        a, b = root[left], root[right]
        if np.array_equal(a, b):
            return root
        least = np.minimum(a, b)
        np.minimum.at(root, a, least)
        np.minimum.at(root, b, least)
        while not np.array_equal(root, root[root]):
            root = root[root]
