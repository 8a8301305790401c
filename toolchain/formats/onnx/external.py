"""ONNX models of more than one protobuf message holds: large constants lie in a second file beside the first.

ONNX calls it external data: a constant names the file, an offset and a length. The second file is called as the first,
and `.data`; offsets are divisible by 4096, so that a runtime can map it. Small constants, shapes among them, stay
inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, TensorProto

SUFFIX = ".data"
ALIGNMENT = 4096


@dataclass
class DataFile:
    """The second file under construction. Arrays are not copied before `content` puts them together."""

    name: str
    _parts: list[np.ndarray] = field(default_factory=list)
    _bytes: int = 0

    def add(self, tensor: TensorProto, values: np.ndarray) -> None:
        """Make `tensor` name its place, which is at the end."""
        padding = -self._bytes % ALIGNMENT
        flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._parts += [np.zeros(padding, np.uint8), flat]
        tensor.data_location = TensorProto.EXTERNAL
        places = {"location": self.name, "offset": self._bytes + padding, "length": len(flat)}
        for key, value in places.items():
            tensor.external_data.add(key=key, value=str(value))
        self._bytes += padding + len(flat)

    def content(self) -> bytes:
        return b"".join(part.data for part in self._parts)


def take_inside(proto: ModelProto, data: bytes) -> None:
    """Give the constants of `proto` that lie in `data` their bytes; those whose place is not in it stay without."""
    view = memoryview(data)
    for tensor in proto.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            place = _place(tensor, len(data))
            if place is not None:
                tensor.raw_data = bytes(view[place])
                tensor.data_location = TensorProto.DEFAULT
                del tensor.external_data[:]


def data_names(proto: ModelProto) -> Sequence[str]:
    """Names of the files that constants lie in."""
    entries = (entry for tensor in proto.graph.initializer for entry in tensor.external_data)
    return sorted({entry.value for entry in entries if entry.key == "location"})


def _place(tensor: TensorProto, size: int) -> slice | None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        start, length = int(entries.get("offset", 0)), int(entries["length"])
    except (KeyError, ValueError):
        return None
    return slice(start, start + length) if start >= 0 and length >= 0 and start + length <= size else None
