"""What rungs work with, and how a rung ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np

from toolchain.diagnosis.sensitivity import sample_chunks
from toolchain.graph import Graph
from toolchain.graph.batch import mixes_samples
from toolchain.ladder.climb import Footing, Step
from toolchain.ladder.goal import Goal
from toolchain.ladder.noise import Episode
from toolchain.ladder.settings import Settings, with_learned
from toolchain.progress import SILENT, Progress
from toolchain.quantization import NumberFormat
from toolchain.samples import SampleSet

NOISE_SAMPLES, NOISE_STEPS = 8, 32


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

    def episodes(self, graph: Graph) -> Iterator[Episode]:
        """A few samples to measure noise on, as many at a time as memory allows; of streams some steps from their
        middle, several streams side by side where `graph` treats samples apart."""
        if (streams := self.samples.streams) is None:
            return ([chunk] for chunk in sample_chunks(graph, self.batches(), NOISE_SAMPLES))
        lanes = NOISE_SAMPLES if mixes_samples(graph) is None else 1
        chosen = list(islice((batch for _, batch in self.samples.whole_streams("calibration")), lanes))
        start = max(0, (streams.steps - NOISE_STEPS) // 2)
        steps = range(start, min(start + NOISE_STEPS, streams.steps))
        columns = [np.stack(arrays) for arrays in zip(*(batch.inputs for batch in chosen), strict=True)]
        return iter([[tuple(np.ascontiguousarray(column[:, step]) for column in columns) for step in steps]])

    def learning_batches(self) -> Iterator[Sequence[np.ndarray]]:
        """Those that may be learned from."""
        return islice(self.batches(), self.learn_from)


def settled(footing: Footing, settings: Settings, notes: Mapping[str, Any] = MappingProxyType({})) -> Step:
    """A step to other settings, on which what was learned holds where it still can."""
    return Step(Footing(settings, with_learned(settings.quantized(), footing.model)), notes)
