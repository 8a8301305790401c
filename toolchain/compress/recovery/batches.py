"""Training batches: all samples, in another order each epoch, the same for a seed whenever and wherever it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from toolchain.graph import Graph, mixes_samples
from toolchain.samples import Batch, SampleSet, Selection

Batches: TypeAlias = Callable[[int], Iterable[Batch]]
"""epoch -> its batches, anew at every call."""

_HELD_BYTES = 2**30
"""Samples that take no more than this are held in memory, others are read anew every epoch."""


@dataclass(frozen=True)
class NumberedBatch(Batch):
    """A batch whose samples have numbers (N,), by which what a teacher says of them can be kept."""

    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, kw_only=True)
class EpochBatches:
    """The calibration samples `chosen` (places in the set; None: all) in batches, shuffled by `seed` and the epoch.

    Batches are of the set's batch size, but of the rows the graph was traced with where it mixes samples.
    """

    samples: SampleSet
    seed: int = 0
    chosen: np.ndarray | None = None
    _held: list[Batch] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def count(self) -> int:
        """Samples an epoch."""
        return self.samples.calibration_count if self.chosen is None else len(self.chosen)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return -(-self.count // self.samples.batch_size)

    def __call__(self, epoch: int) -> Iterator[NumberedBatch]:
        return self.in_order(np.random.default_rng([self.seed, epoch]).permutation(self.count))

    def in_order(self, order: np.ndarray | None = None) -> Iterator[NumberedBatch]:
        """The samples in their own order, or in the given one."""
        numbers = np.arange(self.samples.calibration_count) if self.chosen is None else self.chosen
        numbers = numbers if order is None else numbers[order]
        size = self.samples.batch_size
        parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        if self._is_small():
            whole = self._whole()
            for part in parts:
                labels = None if whole.labels is None else whole.labels[part]
                yield NumberedBatch(tuple(array[part] for array in whole.inputs), labels, part)
            return
        for part, batch in zip(parts, self._streamed(numbers), strict=True):
            yield NumberedBatch(batch.inputs, batch.labels, part)

    def _streamed(self, numbers: np.ndarray) -> Iterator[Batch]:
        rows = self.samples.for_calibration
        chosen = Selection(rows.rows, tuple(rows.numbers[number] for number in numbers))
        return replace(self.samples, for_calibration=chosen).calibration()

    def _is_small(self) -> bool:
        if self._held:
            return True
        first = self.samples.first_inputs()
        return sum(array.nbytes for array in first) * self.samples.calibration_count <= _HELD_BYTES

    def _whole(self) -> Batch:
        """All calibration samples of the set as one batch, read once."""
        if not self._held:
            self._held.extend(self.samples.with_batch_size(self.samples.calibration_count).calibration())
        return self._held[0]


def runnable_samples(samples: SampleSet, graph: Graph) -> SampleSet:
    """The samples in batches that `graph` takes: of the rows it was traced with where it mixes samples."""
    return samples if mixes_samples(graph) is None else samples.with_batch_size(graph.inputs[0].type.shape[0])
