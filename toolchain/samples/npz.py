"""An .npz of arrays (N, ...): chosen samples are streamed out of it, so that the whole is never in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from toolchain.errors import OptionError, SampleError
from toolchain.samples.checks import Sample
from toolchain.samples.elements import LABEL_KEYS
from toolchain.samples.spool import SpooledRows


@dataclass(frozen=True)
class Member:
    """One array of an .npz: its name, the shape (N, ...) and dtype that its header states."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class NpzRows:
    """The samples of an .npz. What a pass reads is first copied to a temporary file, once, in one stream."""

    def __init__(self, path: Path) -> None:
        self._path = path
        members = _guarded_members(path)
        self._label = next((m for key in LABEL_KEYS for m in members if m.name == key), None)
        self._members = [m for m in members if m is not self._label]
        if not self._members:
            raise _refusal(path, "holds no array of samples", "save arrays (N, ...) with numpy.savez")
        self._length = _common_length(path, members)
        self._copies: dict[int, int] = {}
        self._spool: SpooledRows | None = None
        names = tuple(m.name for m in self._members)
        unnamed = all(name == f"arr_{position}" for position, name in enumerate(names))
        self.input_names = () if unnamed else names

    def __len__(self) -> int:
        return self._length

    def read(self, numbers: Sequence[int]) -> Iterator[Sample]:
        """Yield samples by number; see `Rows`."""
        spool = self._copied(numbers)
        return spool.read([self._copies[number] for number in numbers])

    def fingerprints(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """Yield what determines the samples; see `Rows`."""
        spool = self._copied(numbers)
        return spool.fingerprints([self._copies[number] for number in numbers])

    def _copied(self, numbers: Sequence[int]) -> SpooledRows:
        """Return the spool, after the samples it still lacks were copied to it."""
        if self._spool is None:
            self._spool = SpooledRows(self.input_names)
        lacking = sorted(set(numbers) - self._copies.keys())
        if lacking:
            try:
                for number, sample in zip(lacking, self._stream(lacking), strict=True):
                    self._copies[number] = len(self._spool)
                    self._spool.append(sample)
            except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
                raise _refusal(self._path, f"is damaged: {error}", "save it anew") from error
        return self._spool

    def _stream(self, numbers: Sequence[int]) -> Iterator[Sample]:
        """Yield the samples with these rising numbers, reading every array of the archive side by side."""
        with zipfile.ZipFile(self._path) as archive:
            arrays = [_rows_of(archive, member, numbers) for member in self._members]
            label = _rows_of(archive, self._label, numbers) if self._label else None
            for number in numbers:
                inputs = tuple(next(rows) for rows in arrays)
                yield Sample(inputs, int(next(label)) if label else None, f"sample {number} of {self._path}")


def _rows_of(archive: zipfile.ZipFile, member: Member, numbers: Sequence[int]) -> Iterator[NDArray[Any]]:
    shape = member.shape[1:]
    size = member.dtype.itemsize * int(np.prod(shape))
    with archive.open(f"{member.name}.npy") as file:
        _read_header(file)
        position = 0
        for number in numbers:
            for _ in range(number - position):
                _read_exactly(file, size)
            position = number + 1
            yield np.frombuffer(_read_exactly(file, size), member.dtype).reshape(shape)


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError("an array ends before its header says")
    return content


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(file)


def _guarded_members(path: Path) -> list[Member]:
    if not path.is_file():
        raise OptionError(f"{path} does not exist", hint="check the path of the .npz")
    try:
        with zipfile.ZipFile(path) as archive:
            return [_member(path, archive, name) for name in archive.namelist() if name.endswith(".npy")]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise _refusal(path, f"is no readable .npz: {error}", "save arrays with numpy.savez") from error


def _member(path: Path, archive: zipfile.ZipFile, file_name: str) -> Member:
    name = file_name.removesuffix(".npy")
    with archive.open(file_name) as file:
        shape, by_columns, dtype = _read_header(file)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise _refusal(path, f"holds {name!r} of dtype {dtype}, no array of numbers", "save arrays of numbers only")
    if not shape:
        raise _refusal(path, f"holds {name!r} without dimensions", "save arrays (N, ...)")
    if by_columns and len(shape) > 1:
        raise _refusal(path, f"holds {name!r} in Fortran order", "save numpy.ascontiguousarray of it")
    return Member(name, shape, dtype)


def _common_length(path: Path, members: Sequence[Member]) -> int:
    lengths = {member.name: member.shape[0] for member in members}
    if len(set(lengths.values())) > 1:
        raise _refusal(path, f"holds arrays of different numbers of samples: {lengths}", "save arrays with the same N")
    labels = [member for member in members if member.name in LABEL_KEYS]
    if any(len(m.shape) != 1 or m.dtype.kind not in "biu" for m in labels):
        raise _refusal(path, "holds labels that are no whole numbers (N,)", "save one class number a sample")
    return next(iter(lengths.values()))


def _refusal(path: Path, what: str, hint: str) -> SampleError:
    return SampleError(f"the .npz {what}", where=str(path), hint=hint)
