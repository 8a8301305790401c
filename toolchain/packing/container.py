"""The packed file's outer form: a header, then records, each with a checksum of its own.

    header    "TPK1", length of the original (varint), its sha256 (32 bytes)
    record    kind (1 byte), length of the body (varint), body, crc32 of kind and body (4 bytes, little-endian)

Records: plain bytes of the original; one tensor's elements; the end. What is between two tensors was read with the
plain records before them, so that a reader holds one tensor at a time. A varint is base 128, low digits first.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

from toolchain.errors import OptionError

MAGIC = b"TPK1"
SUFFIX = ".packed"
MOST_ELEMENTS = 1 << 22
"""Elements of one record: longer tensors are several records, so that memory does not grow with them."""

MOST_PLAIN_BYTES = 1 << 22
MOST_BODY_BYTES = 1 << 26
"""No record that is written comes near: a longer one is damage."""

_DIGEST_BYTES = 32


class RecordKind(IntEnum):
    """What a record holds."""

    END = 0
    PLAIN = 1
    TENSOR = 2


@dataclass(frozen=True)
class Header:
    """Length in bytes and sha256 of the original."""

    length: int
    digest: bytes


def damaged(why: str) -> OptionError:
    """The one error of everything that is wrong with a packed file."""
    return OptionError(f"the packed file is damaged: {why}", hint="download it again, or pack the model anew")


def varint(number: int) -> bytes:
    """`number` >= 0 in base 128, low digits first."""
    digits = bytearray()
    while number >= 128:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


class Fields:
    """Reads a record's body from its start to its end. Raises OptionError where it ends too early."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def number(self) -> int:
        found = shift = 0
        while True:
            (digit,) = self.take(1)
            found |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                return found
            if shift > 63:
                raise damaged("a number of more than nine digits")

    def take(self, count: int) -> bytes:
        if count > len(self._body) - self._at:
            raise damaged("a record ends too early")
        self._at += count
        return self._body[self._at - count : self._at]

    def finish(self) -> None:
        if self._at != len(self._body):
            raise damaged("a record is longer than what it holds")


def write_header(sink: BinaryIO, header: Header) -> int:
    """Bytes written."""
    return sink.write(MAGIC + varint(header.length) + header.digest)


def write_record(sink: BinaryIO, kind: RecordKind, body: bytes) -> int:
    """Bytes written."""
    checksum = zlib.crc32(bytes([kind]) + body)
    return sink.write(bytes([kind]) + varint(len(body)) + body + checksum.to_bytes(4, "little"))


def read_header(source: BinaryIO) -> Header:
    """Raises OptionError where `source` is no packed file."""
    if source.read(len(MAGIC)) != MAGIC:
        raise OptionError("this is no packed model", hint="give what toolchain pack wrote")
    return Header(_read_number(source), _read(source, _DIGEST_BYTES))


def read_records(source: BinaryIO) -> Iterator[tuple[RecordKind, Fields]]:
    """Every record up to the end, checksum verified. Raises OptionError where one is damaged or the end is missing."""
    while True:
        kind, length = _read(source, 1), _read_number(source)
        if length > MOST_BODY_BYTES:
            raise damaged(f"a record of {length:,} bytes")
        body = _read(source, length)
        if int.from_bytes(_read(source, 4), "little") != zlib.crc32(kind + body):
            raise damaged("a record does not have its checksum")
        if kind[0] == RecordKind.END:
            if source.read(1):
                raise damaged("it goes on after its end")
            return
        if kind[0] not in (RecordKind.PLAIN, RecordKind.TENSOR):
            raise damaged(f"a record of the unknown kind {kind[0]}")
        yield RecordKind(kind[0]), Fields(body)


def _read(source: BinaryIO, count: int) -> bytes:
    found = source.read(count)
    if len(found) != count:
        raise damaged("it ends too early")
    return found


def _read_number(source: BinaryIO) -> int:
    digits = b""
    while not digits or digits[-1] >= 128:
        digits += _read(source, 1)
        if len(digits) > 9:
            raise damaged("a number of more than nine digits")
    return Fields(digits).number()
