"""What rungs work with, and how a rung ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np

from toolchain.ladder.climb import Footing, Step
from toolchain.ladder.goal import Goal
from toolchain.ladder.settings import Settings, with_learned
from toolchain.progress import SILENT, Progress
from toolchain.quantization import NumberFormat
from toolchain.samples import SampleSet


@dataclass(frozen=True)
class Means:
    """What rungs work with: the samples, the goal, the formats that nodes may take, a seed, the seconds that
    learning may last, the bytes that weights may take, and how many batches may be learned from (None: all)."""

    samples: SampleSet
    goal: Goal
    alternatives: tuple[NumberFormat, ...]
    seed: int
    seconds: float
    most_bytes: int | None = None
    learn_from: int | None = None
    progress: Progress = SILENT

    def batches(self) -> Iterator[Sequence[np.ndarray]]:
        """The calibration samples' inputs, from the start."""
        return (batch.inputs for batch in self.samples.calibration())

    def learning_batches(self) -> Iterator[Sequence[np.ndarray]]:
        """Those that may be learned from."""
        return islice(self.batches(), self.learn_from)


def settled(footing: Footing, settings: Settings, notes: Mapping[str, Any] = MappingProxyType({})) -> Step:
    """A step to other settings, on which what was learned holds where it still can."""
    return Step(Footing(settings, with_learned(settings.quantized(), footing.model)), notes)
