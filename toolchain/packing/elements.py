"""A tensor's elements as streams that an entropy coder makes small, in the form that comes out smallest.

* **palette**: at most 256 distinct elements, ascending, and an index for each element: a byte, or, of k <= 16, as many
  in a byte as k^n <= 256 allows, so that Huffman codes of whole bits lose less;
* **planes**: the first bytes of all elements, then the second ones ...: high bytes of floats and biases are alike;
* **sparse**: one element in most places (zero as a rule); the gaps between the others, along rows or down columns, a
  byte each (255 goes on into the next), and the others as palette or planes.

Rows that repeat an earlier one (tied filters) are written once: for each row the number of its like, two bytes.

`body = bits, rows, columns, form, [numbers of rows,] [the element in most places, gaps,] [palette,] indices or planes`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from toolchain.packing.coder import read_stream, write_stream
from toolchain.packing.container import MOST_ELEMENTS, Fields, damaged, varint

_SPARSE_FROM = 0.3
"""Share of the most frequent element from which positions are tried."""

_MOST_VALUES = 256
_MOST_ROWS = 1 << 16
_LONG_GAP = 255
_TYPES = {4: np.uint8, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
BITS = tuple(_TYPES)
"""Sizes of elements; 4 bits are two a byte, the first one low."""


class Form(IntFlag):
    """How elements are written; without a flag as planes in their order."""

    PLANES = 0
    PALETTE = 1
    SPARSE = 2
    COLUMNS = 4
    GROUPED = 8
    REPEATED = 16


@dataclass(frozen=True)
class Written:
    """A body, its form, the number of distinct elements, and the share of the most frequent one."""

    body: bytes
    form: Form
    values: int
    most_frequent: float


def split_elements(content: bytes, bits: int) -> np.ndarray:
    """Elements `(n,)`, unsigned, of the bytes of a tensor."""
    held = np.frombuffer(content, _TYPES[bits])
    return np.stack([held & 15, held >> 4], axis=1).reshape(-1) if bits == 4 else held


def join_elements(elements: np.ndarray, bits: int) -> bytes:
    """The bytes that `split_elements` was given."""
    if bits == 4:
        elements = (elements[0::2] | elements[1::2] << 4).astype(np.uint8)
    whole: bytes = elements.tobytes()
    return whole


def write_elements(elements: np.ndarray, bits: int, rows: int) -> Written:
    """The smallest body of elements `(n,)`, which lie in so many rows of equal length."""
    head = varint(bits) + varint(rows) + varint(len(elements) // rows)
    form, streams, values, share = _smallest(elements, rows)
    if found := _repeated(elements.reshape(rows, -1)):
        once, numbers = found
        other, shorter, *_ = _smallest(once.reshape(-1), len(once))
        if len(numbers) + len(shorter) < len(streams):
            form, streams = other | Form.REPEATED, numbers + shorter
    return Written(head + varint(form) + streams, form, values, share)


def _repeated(table: np.ndarray) -> tuple[np.ndarray, bytes] | None:
    """The different rows in the order in which they come, and the stream of numbers of all rows among them; None where
    each comes once, or there are too many."""
    if not 1 < len(table) <= _MOST_ROWS:
        return None
    seen: dict[bytes, int] = {}
    numbers = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in table], np.uint16)
    if len(seen) == len(table):
        return None
    firsts = np.unique(numbers, return_index=True)[1]
    planes = numbers.view(np.uint8).reshape(-1, 2)
    return table[firsts], varint(len(seen)) + b"".join(write_stream(planes[:, k].tobytes()) for k in (0, 1))


def _smallest(elements: np.ndarray, rows: int) -> tuple[Form, bytes, int, float]:
    """Form and streams of elements, how many are distinct, and the share of the most frequent."""
    values, indices, counts = np.unique(elements, return_inverse=True, return_counts=True)
    common = int(counts.argmax())
    share = float(counts[common] / len(elements))
    candidates = list(_dense(elements, values, indices))
    if share >= _SPARSE_FROM:
        candidates += _sparse(elements.reshape(rows, -1), values[common])
    form, streams = min(candidates, key=lambda candidate: len(candidate[1]))
    return form, streams, len(values), share


def read_elements(fields: Fields) -> tuple[np.ndarray, int]:
    """Elements `(n,)` and their bits. Raises OptionError where the body is damaged."""
    bits, rows, columns = fields.number(), fields.number(), fields.number()
    if bits not in _TYPES or not 0 < rows * columns <= MOST_ELEMENTS:
        raise damaged(f"a tensor of {rows} x {columns} elements of {bits} bits")
    try:
        form = Form(fields.number())
    except ValueError as error:
        raise damaged(str(error)) from error
    dtype = np.dtype(_TYPES[bits])
    if Form.REPEATED not in form:
        return _read_rows(fields, form, dtype, rows, columns), bits
    different = fields.number()
    planes = [np.frombuffer(read_stream(fields), np.uint8) for _ in range(2)]
    if not 0 < different <= rows or any(len(plane) != rows for plane in planes):
        raise damaged("rows do not fit their tensor")
    numbers = planes[0] + planes[1].astype(np.int64) * 256
    if numbers.max() >= different:
        raise damaged("a row repeats none")
    once = _read_rows(fields, form, dtype, different, columns).reshape(different, columns)
    return once[numbers].reshape(-1), bits


def _read_rows(fields: Fields, form: Form, dtype: np.dtype, rows: int, columns: int) -> np.ndarray:
    count = rows * columns
    if Form.SPARSE not in form:
        return _read_dense(fields, form, dtype, count)
    common = np.frombuffer(fields.take(dtype.itemsize), dtype)
    places = _places(np.frombuffer(read_stream(fields), np.uint8))
    if len(places) and places[-1] >= count:
        raise damaged("an element lies outside its tensor")
    elements = np.full(count, common[0], dtype)
    elements[places] = _read_dense(fields, form, dtype, len(places))
    if Form.COLUMNS in form:
        elements = elements.reshape(columns, rows).T.reshape(-1)
    return elements


def _dense(elements: np.ndarray, values: np.ndarray, indices: np.ndarray) -> Iterator[tuple[Form, bytes]]:
    if len(values) <= _MOST_VALUES:
        palette = varint(len(values)) + values.tobytes()
        yield Form.PALETTE, palette + write_stream(indices.astype(np.uint8).tobytes())
        if (count := _group(len(values))) > 1:
            grouped = _grouped(indices, len(values), count)
            yield Form.PALETTE | Form.GROUPED, palette + write_stream(grouped.tobytes())
    if elements.itemsize > 1 or len(values) > _MOST_VALUES // 4:
        planes = elements.view(np.uint8).reshape(len(elements), -1).T
        yield Form.PLANES, b"".join(write_stream(plane.tobytes()) for plane in planes)


def _group(values: int) -> int:
    """How many indices into so many values a byte holds."""
    return 1 if values < 2 else next(count for count in range(8, 0, -1) if values**count <= _MOST_VALUES)


def _grouped(indices: np.ndarray, values: int, count: int) -> np.ndarray:
    """Bytes, each the digits in base `values` of so many indices; the last one is filled up with zeros."""
    padded = np.zeros(-(-len(indices) // count) * count, np.int64)
    padded[: len(indices)] = indices
    return (padded.reshape(-1, count) @ values ** np.arange(count)).astype(np.uint8)


def _ungrouped(grouped: np.ndarray, values: int, count: int, wanted: int) -> np.ndarray:
    """The first `wanted` indices of what `_grouped` gave."""
    if len(grouped) != -(-wanted // count):
        raise damaged("indices do not fit their tensor")
    digits = grouped.astype(np.int64)[:, None] // values ** np.arange(count) % values
    return digits.reshape(-1)[:wanted].astype(np.uint8)


def _sparse(table: np.ndarray, common: np.generic) -> Iterator[tuple[Form, bytes]]:
    for order, lines in ((Form.PLANES, table), (Form.COLUMNS, table.T)):
        flat = np.ascontiguousarray(lines).reshape(-1)
        places = np.flatnonzero(flat != common)
        positions = common.tobytes() + write_stream(_gaps(places))
        if not len(places):
            yield Form.SPARSE | order | Form.PALETTE, positions + varint(0) + write_stream(b"")
            return
        values, indices = np.unique(flat[places], return_inverse=True)
        for form, streams in _dense(flat[places], values, indices):
            yield Form.SPARSE | order | form, positions + streams


def _read_dense(fields: Fields, form: Form, dtype: np.dtype, count: int) -> np.ndarray:
    if Form.PALETTE in form:
        size = fields.number()
        if size > _MOST_VALUES or (size < 2 and Form.GROUPED in form):
            raise damaged(f"a palette of {size} elements")
        palette = np.frombuffer(fields.take(size * dtype.itemsize), dtype)
        indices = np.frombuffer(read_stream(fields), np.uint8)
        if Form.GROUPED in form:
            indices = _ungrouped(indices, size, _group(size), count)
        if len(indices) != count or int(indices.max(initial=0)) >= max(size, 1):
            raise damaged("indices do not fit their tensor")
        return palette[indices]
    planes = [np.frombuffer(read_stream(fields), np.uint8) for _ in range(dtype.itemsize)]
    if any(len(plane) != count for plane in planes):
        raise damaged("planes do not fit their tensor")
    return np.ascontiguousarray(np.stack(planes, axis=1)).view(dtype).reshape(-1)


def _gaps(places: np.ndarray) -> bytes:
    """How many common elements lie before each of the ascending places."""
    gaps = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(gaps // _LONG_GAP + 1) - 1
    found = np.full(int(ends[-1]) + 1 if len(ends) else 0, _LONG_GAP, np.uint8)
    found[ends] = gaps % _LONG_GAP
    return found.tobytes()


def _places(gaps: np.ndarray) -> np.ndarray:
    ends = np.flatnonzero(gaps != _LONG_GAP)
    places: np.ndarray = np.cumsum(gaps, dtype=np.int64)[ends] + np.arange(len(ends))
    return places
