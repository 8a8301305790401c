"""The bytes of an ONNX model whose large constants are no part of the protobuf message that is built of it.

protobuf copies what a message is given, and again what it writes. Here constants of more than `SMALLEST_BYTES` are put
between the rest as protobuf's wire format has them, copied once, into the finished bytes:

    model = ... graph(7) { ... initializer(5) { dims data_type name raw_data(9) } ... }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

SMALLEST_BYTES = 1024

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers of ModelProto, GraphProto, TensorProto


def serialize(proto: ModelProto, large: Mapping[str, np.ndarray], limit: int) -> bytes | int:
    """The file's bytes, or how many there would be where these reach `limit`. `large` has the values of the constants
    that `proto` only names."""
    rest, graph = ModelProto(), GraphProto()
    rest.CopyFrom(proto)
    rest.ClearField("graph")
    graph.CopyFrom(proto.graph)
    graph.ClearField("initializer")
    graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name not in large)
    constants = [tensor for tensor in proto.graph.initializer if tensor.name in large]
    parts = [graph.SerializeToString(deterministic=True)]
    for tensor in constants:
        parts += _constant(tensor, large[tensor.name])
    size = sum(len(part) for part in parts)
    head = [rest.SerializeToString(deterministic=True), _tag(_GRAPH), _varint(size)]
    total = size + sum(len(part) for part in head)
    return total if total >= limit else b"".join([*head, *parts])


def _constant(tensor: TensorProto, values: np.ndarray) -> Iterator[bytes | memoryview]:
    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    named = tensor.SerializeToString(deterministic=True) + _tag(_RAW_DATA) + _varint(len(raw))
    yield _tag(_INITIALIZER) + _varint(len(named) + len(raw)) + named
    yield raw


def _tag(field: int) -> bytes:
    """A field whose length and bytes follow."""
    return _varint(field << 3 | 2)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
