"""The memory plan of a TFLite file: which activations are alive at once, and where tflite-micro's planner puts them.

An activation lives from the operator that makes it (inputs: from the start) to the last that reads it (outputs: to the
end). The planner is tflite-micro's greedy one: buffers, each a multiple of 16 bytes, by size, the largest first, each
at the lowest offset where it meets no buffer that lives at the same time:

    head of the arena >= max over time of the sum of what is alive

Kernels may ask for scratch memory beside, which only the interpreter knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolchain.formats.tflite.parse import ParsedModel

ALIGNMENT = 16
"""Of buffers in the arena: MicroArenaBufferAlignment of tflite-micro."""


@dataclass(frozen=True)
class Buffer:
    """An activation: its bytes, and the first and last operator of its life, counted from 1."""

    name: str
    size_bytes: int
    first: int
    last: int

    @property
    def aligned_bytes(self) -> int:
        return -(-self.size_bytes // ALIGNMENT) * ALIGNMENT

    def meets(self, other: Buffer) -> bool:
        """Whether both are alive at some time."""
        return self.first <= other.last and other.first <= self.last


def activations(model: ParsedModel, decoded: Sequence[int] = ()) -> tuple[Buffer, ...]:
    """Every activation of the file; the constants `decoded` are those that each operator has decoded anew."""
    first = {index: 0 for _, index in model.inputs}
    last = dict(first)
    found = []
    for at, operator in enumerate(model.operators, start=1):
        for index in operator.outputs:
            first.setdefault(index, at)
            last[index] = at
        for index in operator.inputs:
            if index in first:
                last[index] = at
            elif index in decoded:
                facts = model.tensors[index]
                found.append(Buffer(facts.name, _bytes(model, index), at, at))
    for _, index in model.outputs:
        if index in first:
            last[index] = len(model.operators) + 1
    return (*(Buffer(model.tensors[i].name, _bytes(model, i), first[i], last[i]) for i in first), *found)


def _bytes(model: ParsedModel, index: int) -> int:
    facts = model.tensors[index]
    elements = 1
    for size in facts.shape:
        elements *= size
    return facts.dtype.stored_bytes(elements)


def head_bytes(buffers: Sequence[Buffer]) -> int:
    """Bytes that the greedy planner needs for them."""
    placed: list[tuple[int, Buffer]] = []
    for buffer in sorted(buffers, key=lambda b: -b.aligned_bytes):
        offset = 0
        for start, other in sorted(((s, o) for s, o in placed if o.meets(buffer)), key=lambda pair: pair[0]):
            if start - offset >= buffer.aligned_bytes:
                break
            offset = max(offset, start + other.aligned_bytes)
        placed.append((offset, buffer))
    return max((offset + buffer.aligned_bytes for offset, buffer in placed), default=0)


def alive_at_peak(buffers: Sequence[Buffer]) -> tuple[Buffer, ...]:
    """The activations alive at the operator where they take the most, the largest first."""
    moments = range(max((buffer.last for buffer in buffers), default=0) + 1)
    alive = (tuple(b for b in buffers if b.first <= at <= b.last) for at in moments)
    peak = max(alive, key=lambda found: sum(b.aligned_bytes for b in found))
    return tuple(sorted(peak, key=lambda b: -b.size_bytes))
