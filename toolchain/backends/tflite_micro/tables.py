"""Weights as lookup tables: b bits an index and k <= 2^b values, a table a tensor or, with scales a channel, a channel.

    bytes = ceil(n b / 8) + 16 + tables (k + 24) + 512        in place of n

of which 24 a table are scales and zero points that the file then holds twice, and 512 the operator and its tensors,
about. A DECODE operator writes each weight out before its layer, into the arena: flash is gained and RAM lost. Tables
pay where flash gained exceeds RAM lost, so that only weights up to some size are stored so: the size at which, by the
memory plan, most is won.

The kernel takes the number of tables from the weight's scales, whatever the file says: one table for a weight with one
scale a channel decodes to garbage without a word. Tables follow the scales here, and outputs are always compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from toolchain.backends.tflite_micro.plan import activations, head_bytes
from toolchain.formats.tflite.parse import ParsedModel
from toolchain.graph import DType

MOST_BITS = 7
_HEADER_BYTES, _CHANNEL_BYTES, _OPERATOR_BYTES = 16, 24, 512

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Table:
    """How one weight is stored: bits of an index, the axis that tables lie along (None: one table), bytes saved."""

    tensor: int
    bits: int
    axis: int | None
    size_bytes: int
    saved_bytes: int

    def plain(self) -> dict[str, int | None]:
        """As the process that compresses takes it."""
        return {"tensor": self.tensor, "bits": self.bits, "axis": self.axis}


def choose_tables(model: ParsedModel) -> tuple[Table, ...]:
    """The weights to store as tables, so that bytes saved less bytes of arena are the most; none where none pay."""
    found = sorted(_tables(model), key=lambda table: table.size_bytes)
    plain = head_bytes(activations(model))
    best: tuple[int, tuple[Table, ...]] = (0, ())
    for count in range(1, len(found) + 1):
        chosen = tuple(found[:count])
        lost = head_bytes(activations(model, [table.tensor for table in chosen])) - plain
        best = max(best, (sum(table.saved_bytes for table in chosen) - lost, chosen), key=lambda pair: pair[0])
    return best[1]


def _tables(model: ParsedModel) -> Iterator[Table]:
    read = {operator.inputs[1] for operator in model.operators if operator.name in _LAYERS}
    for index in sorted(read & model.values.keys()):
        facts, weight = model.tensors[index], model.values[index]
        if facts.dtype is not DType.INT8 or facts.is_sparse or facts.axis not in (None, 0, weight.ndim - 1):
            continue
        tables = weight[np.newaxis] if facts.axis is None else np.moveaxis(weight, facts.axis, 0)
        saved = _saved(weight.size, tables)
        if saved is not None:
            yield Table(index, saved[0], facts.axis, weight.size, saved[1])


def _saved(elements: int, tables: np.ndarray) -> tuple[int, int] | None:
    values = max(len(np.unique(table)) for table in tables)
    bits = max(ceil(log2(values)), 1)
    size = -(-elements * bits // 8) + _HEADER_BYTES + len(tables) * (values + _CHANNEL_BYTES) + _OPERATOR_BYTES
    return (bits, elements - size) if bits <= MOST_BITS and size < elements else None
