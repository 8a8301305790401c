"""A model file to its packed form, record by record."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from toolchain.atomic import unfinished_file
from toolchain.errors import OptionError
from toolchain.packing.coder import write_stream
from toolchain.packing.container import (
    MOST_ELEMENTS,
    MOST_PLAIN_BYTES,
    Header,
    RecordKind,
    varint,
    write_header,
    write_record,
)
from toolchain.packing.elements import Form, split_elements, write_elements
from toolchain.packing.segments import Segment, find_segments


@dataclass(frozen=True)
class PackedTensor:
    """One tensor, or a part of a long one: bytes before and after, how it is coded, its distinct elements, and the
    share of the most frequent one."""

    name: str
    bytes: int
    packed_bytes: int
    form: str
    values: int
    most_frequent: float


@dataclass(frozen=True)
class Packed:
    """What packing made of a file: bytes before and after, those of what is no tensor, and each tensor."""

    bytes: int
    packed_bytes: int
    plain_bytes: int
    packed_plain_bytes: int
    tensors: tuple[PackedTensor, ...]

    @property
    def ratio(self) -> float:
        return self.bytes / self.packed_bytes

    def facts(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**vars(self), "tensors": [vars(tensor) for tensor in self.tensors]}


def pack(content: bytes) -> tuple[bytes, Packed]:
    """The packed form of a .tflite or .onnx file, and what became of its parts. Raises OptionError where `content` is
    neither, or damaged."""
    sink = io.BytesIO()
    made = write_packed(content, sink)
    return sink.getvalue(), made


def pack_file(source: str | Path, out: str | Path) -> Packed:
    """Pack the file `source` to `out`, whole or not at all. Raises OptionError where one cannot be read, written or
    understood."""
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        raise OptionError(f"{source} cannot be read: {error.strerror}") from error
    try:
        with unfinished_file(Path(out)) as temporary, temporary.open("wb") as sink:
            return write_packed(content, sink)
    except OSError as error:
        raise OptionError(f"{out} cannot be written: {error.strerror}") from error
    except OptionError as error:
        error.where = str(source)
        raise


def write_packed(content: bytes, sink: BinaryIO) -> Packed:
    """Write the packed form of `content` to `sink`, as it is made."""
    segments = find_segments(content)
    gaps = _gaps(content, segments)
    plain = _Plain(b"".join(gaps), sink)
    size = write_header(sink, Header(len(content), hashlib.sha256(content).digest()))
    tensors = []
    for gap, segment in zip(gaps, segments, strict=False):
        plain.need(len(gap))
        skipped = len(gap)
        for part, rows in _parts(content, segment):
            written = write_elements(split_elements(part, segment.bits), segment.bits, rows)
            length = write_record(sink, RecordKind.TENSOR, varint(skipped) + written.body)
            tensors.append(
                PackedTensor(
                    segment.name, len(part), length, _form_name(written.form), written.values, written.most_frequent
                )
            )
            skipped, size = 0, size + length
    plain.need(len(gaps[-1]))
    size += plain.written + write_record(sink, RecordKind.END, b"")
    return Packed(len(content), size, len(plain.content), plain.written, tuple(tensors))


class _Plain:
    """What lies between tensors, written in long pieces, each before the first tensor whose gap reaches into it."""

    def __init__(self, content: bytes, sink: BinaryIO) -> None:
        self.content, self._sink = content, sink
        self._needed = self._sent = self.written = 0

    def need(self, count: int) -> None:
        self._needed += count
        while self._sent < self._needed:
            piece = self.content[self._sent : self._sent + MOST_PLAIN_BYTES]
            self.written += write_record(self._sink, RecordKind.PLAIN, write_stream(piece, is_structured=True))
            self._sent += len(piece)


def _gaps(content: bytes, segments: Sequence[Segment]) -> list[bytes]:
    """What lies before each segment, and after the last."""
    starts = [0, *(segment.offset + segment.length for segment in segments)]
    ends = [*(segment.offset for segment in segments), len(content)]
    return [content[start:end] for start, end in zip(starts, ends, strict=True)]


def _parts(content: bytes, segment: Segment) -> Iterator[tuple[bytes, int]]:
    """Bytes and rows of a tensor; of one that is too long in as many parts as need be."""
    held = content[segment.offset : segment.offset + segment.length]
    if segment.elements <= MOST_ELEMENTS:
        yield held, segment.rows
        return
    columns = segment.elements // segment.rows
    row_bits = columns * segment.bits
    if columns <= MOST_ELEMENTS and row_bits % 8 == 0:
        step = MOST_ELEMENTS // columns * row_bits // 8
        yield from ((part, len(part) * 8 // row_bits) for part in _cut(held, step))
    else:
        yield from ((part, 1) for part in _cut(held, MOST_ELEMENTS * segment.bits // 8))


def _cut(held: bytes, step: int) -> Iterator[bytes]:
    return (held[start : start + step] for start in range(0, len(held), step))


def _form_name(form: Form) -> str:
    names = {Form.REPEATED: "rows", Form.SPARSE: "positions", Form.PALETTE: "palette"}
    return " and ".join(name for flag, name in names.items() if flag in form) or "planes"
