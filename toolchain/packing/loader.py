"""The loader of packed models: the file as it was, to the byte, or one error.

It streams: one record is held at a time. Needs numpy and zstandard, and nothing that reads or runs models.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from toolchain.atomic import unfinished_file
from toolchain.errors import OptionError
from toolchain.packing.coder import read_stream
from toolchain.packing.container import Header, RecordKind, damaged, read_header, read_records
from toolchain.packing.elements import join_elements, read_elements


def unpack(content: bytes) -> bytes:
    """The model file that was packed. Raises OptionError where `content` is damaged or no packed model."""
    sink = io.BytesIO()
    unpack_stream(io.BytesIO(content), sink)
    return sink.getvalue()


def load_packed(path: str | Path) -> bytes:
    """The model in the packed file `path`, ready for a runtime that loads from memory. Raises OptionError."""
    sink = io.BytesIO()
    with _opened(path) as source:
        _unpack_named(path, source, sink)
    return sink.getvalue()


def unpack_file(path: str | Path, out: str | Path) -> int:
    """Unpack the file `path` to `out`, whole or not at all; its bytes. Raises OptionError where either cannot be, or
    the packed file is damaged."""
    with _opened(path) as source:
        try:
            with unfinished_file(Path(out)) as temporary, temporary.open("wb") as sink:
                return _unpack_named(path, source, sink)
        except OSError as error:
            raise OptionError(f"{out} cannot be written: {error.strerror}") from error


def unpack_stream(source: BinaryIO, sink: BinaryIO) -> int:
    """Unpack as it is read; bytes written. What `sink` got counts only where no OptionError was raised: that the whole
    is sound is known at the end."""
    header = read_header(source)
    digest, written = hashlib.sha256(), 0
    for piece in _pieces(source):
        written += len(piece)
        if written > header.length:
            break
        digest.update(piece)
        sink.write(piece)
    _check(header, written, digest.digest())
    return written


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    """The original's bytes in their order."""
    plain = bytearray()
    for kind, fields in read_records(source):
        if kind is RecordKind.PLAIN:
            plain += read_stream(fields)
        else:
            gap = fields.number()
            if gap > len(plain):
                raise damaged("a tensor stands too early")
            yield bytes(plain[:gap])
            del plain[:gap]
            yield join_elements(*read_elements(fields))
        fields.finish()
    yield bytes(plain)


def _check(header: Header, written: int, digest: bytes) -> None:
    if written != header.length:
        raise damaged(f"it holds {written:,} bytes, not {header.length:,}")
    if digest != header.digest:
        raise damaged("its content does not have its checksum")


def _opened(path: str | Path) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from error


def _unpack_named(path: str | Path, source: BinaryIO, sink: BinaryIO) -> int:
    try:
        return unpack_stream(source, sink)
    except OptionError as error:
        error.where = str(path)
        raise
