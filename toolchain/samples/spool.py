"""Samples that come but once (a generator, a shuffling DataLoader) are written to a temporary file and read
back.

The file has no name, so that nothing is left behind however the process ends; TMPDIR says where it lies.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import SampleError
from toolchain.samples.checks import Sample


class SpooledRows:
    """Samples of one shape and dtype an input, one after another in a temporary file."""

    def __init__(self, input_names: tuple[str, ...] = ()) -> None:
        self.input_names = input_names
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="toolchain-samples-")  # noqa: SIM115  closed with self
        self._turn = threading.Lock()  # one position in the file serves every reader
        self._layout: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...] | None = None
        self._labels: list[int | None] = []
        self._places: list[str] = []
        self._hashes: list[bytes] = []

    def __len__(self) -> int:
        return len(self._labels)

    def append(self, sample: Sample) -> None:
        """Write one more sample. Raises SampleError where it is unlike the first, or the disk is full."""
        layout = tuple((value.shape, value.dtype) for value in sample.inputs)
        if self._layout is None:
            self._layout = layout
        if layout != self._layout:
            raise SampleError(
                f"a sample is {_shown(layout)}, but the first is {_shown(self._layout)}",
                where=sample.where,
                hint="give all samples the same shape and dtype",
            )
        content = b"".join(np.ascontiguousarray(value).tobytes() for value in sample.inputs)
        try:
            with self._turn:
                self._file.seek(0, os.SEEK_END)  # a reader may have been here since
                self._file.write(content)
                self._file.flush()  # a full disk shows here, not at some later read
        except OSError as error:
            raise SampleError(
                f"samples could not be written to a temporary file: {error}",
                where=f"{tempfile.gettempdir()}, after {len(self)} samples",
                hint="free space there, or set TMPDIR to a folder that has some",
            ) from error
        self._hashes.append(hashlib.sha256(content).digest())
        self._labels.append(sample.label)
        self._places.append(sample.where)

    def read(self, numbers: Sequence[int]) -> Iterator[Sample]:
        """Yield samples by number; see `Rows`."""
        assert self._layout is not None or not numbers
        size = sum(dtype.itemsize * int(np.prod(shape)) for shape, dtype in self._layout or ())
        for number in numbers:
            with self._turn:
                self._file.seek(number * size)
                content = self._file.read(size)
            yield Sample(tuple(self._cut(content)), self._labels[number], self._places[number])

    def _cut(self, content: bytes) -> Iterator[NDArray[Any]]:
        start = 0
        for shape, dtype in self._layout or ():
            count = int(np.prod(shape))
            yield np.frombuffer(content, dtype, count, start).reshape(shape)
            start += count * dtype.itemsize

    def fingerprints(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Yield what determines the samples; see `Rows`."""
        yield repr(self._layout).encode()
        for number in numbers:
            yield self._hashes[number] + repr(self._labels[number]).encode()


def _shown(layout: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]) -> str:
    return " and ".join(f"{dtype} of shape {shape}" for shape, dtype in layout)
