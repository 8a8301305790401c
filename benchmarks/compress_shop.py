"""What the sections of `make bench-compress` share: where data lies, a folder, and a word to whoever waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import OptionError
from toolchain.samples.digits import as_inputs


@dataclass(frozen=True)
class Mnist:
    """Whole MNIST: images (N, 28, 28) uint8 and labels (N,) int64, 60,000 to train and 10,000 to judge."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    @property
    def judging(self) -> NDArray[np.float32]:
        """(N, 1, 28, 28), 0 to 1."""
        return as_inputs(self.test_images)


@dataclass(frozen=True)
class CompressShop:
    """`folder` holds what is made; `mnist` and `speech` are the data sets, `peers` the folder of the peers' venvs."""

    folder: Path
    mnist: Path | None = None
    speech: Path | None = None
    peers: Path | None = None
    say: Callable[[str], None] = print

    def load_mnist(self) -> Mnist:
        """Raises OptionError where it was not given or cannot be read."""
        found = self._arrays(self.mnist, "--mnist")
        images, labels = (
            [np.asarray(found[f"{part}_{kind}"]) for part in ("train", "test")] for kind in ("images", "labels")
        )
        return Mnist(images[0], labels[0].astype(np.int64), images[1], labels[1].astype(np.int64))

    @staticmethod
    def _arrays(path: Path | None, option: str) -> dict[str, Any]:
        if path is None:
            raise OptionError(f"this section trains on data that {option} names", hint=f"give {option} FILE.npz")
        try:
            with np.load(path) as archive:
                return dict(archive)
        except (OSError, ValueError) as error:
            raise OptionError(f"{path} cannot be read: {error}") from error
