"""The samples that both artifacts are run on: of a sample set, or drawn at random for what the inputs take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from toolchain.comparison.execution import Port
from toolchain.graph import DType
from toolchain.samples import InputType, SampleSet

RANDOM_IDS = 2
"""Integers that are no quantized reals are ids, lengths or masks: 0 and 1 are within the bounds of nearly all."""


def random_samples(
    ports: Sequence[Port], shapes: Sequence[tuple[int, ...]], count: int, seed: int
) -> Iterator[list[np.ndarray]]:
    """`count` samples of real values: normal where an input is float, spread over what its integers can say where it is
    quantized, else 0 and 1. Sizes that are open (-1) are 1."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield [_random(random, port, shape) for port, shape in zip(ports, shapes, strict=True)]


def _random(random: np.random.Generator, port: Port, shape: tuple[int, ...]) -> np.ndarray:
    sizes = [1 if size < 0 else size for size in shape]
    if port.is_quantized:
        limits = np.iinfo(port.dtype.numpy)
        lowest, highest = (port.real(np.asarray(limit)) for limit in (limits.min, limits.max))
        return random.uniform(lowest, highest, sizes).astype(np.float32)
    if port.is_real:
        return random.standard_normal(sizes, np.float32)
    return random.integers(0, RANDOM_IDS, sizes).astype(port.dtype.numpy)


def set_samples(
    samples: SampleSet, ports: Sequence[Port], shapes: Sequence[tuple[int, ...]], count: int
) -> Iterator[list[np.ndarray]]:
    """The first `count` samples of a set, of those kept apart from calibration where there are any, as real values.

    Raises SampleError where they do not fit.
    """
    first = samples.first_inputs()
    kinds = []
    for place, (port, shape) in enumerate(zip(ports, shapes, strict=True)):
        dtype = DType.FLOAT32 if port.is_real else port.dtype
        example = first[place].shape if place < len(first) else ()
        kinds.append(InputType(port.name, _closed(shape, example), dtype.numpy))
    rows = max(shapes[0][0], 1) if shapes and shapes[0] else 1
    checked = samples.checked(kinds).with_batch_size(rows)
    batches = checked.judging() if samples.judging_count else checked.calibration()
    yield from (list(batch.inputs) for batch in islice(batches, count) if len(batch) == rows)


def _closed(shape: tuple[int, ...], example: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with its open sizes as the samples have them."""
    if len(shape) != len(example):
        return shape
    return tuple(found if size < 0 else size for size, found in zip(shape, example, strict=True))
