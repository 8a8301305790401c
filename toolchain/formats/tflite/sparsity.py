"""Sparse constants as the schema stores them: only what is not zero, and where it lies.

A tensor of shape `(d0, ..., dn)` is stored row by row (compressed sparse rows): its axes but the last are dense, and of
each row along the last the values that are not zero and their columns,

    segments[r] = sum over rows q < r of |{c : w[q, c] != 0}|,        columns = concatenation of {c : w[r, c] != 0}.

Indices take the fewest bytes that hold them. A DENSIFY makes the dense tensor of it, once, as the file is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema

INDEX_ALIGNMENT: Final = 4
_INDICES: Final[tuple[tuple[type[np.integer[Any]], int, str], ...]] = (
    (np.uint8, schema.SparseIndexVector.Uint8Vector, "Uint8Vector"),
    (np.uint16, schema.SparseIndexVector.Uint16Vector, "Uint16Vector"),
    (np.int32, schema.SparseIndexVector.Int32Vector, "Int32Vector"),
)


@dataclass(frozen=True)
class SparseRows:
    """`values (n,)` that are not zero, `segments (rows + 1,)` and `columns (n,)` of a tensor of `shape`."""

    shape: tuple[int, ...]
    values: np.ndarray
    segments: np.ndarray
    columns: np.ndarray

    @property
    def bytes(self) -> int:
        """Of values and indices together."""
        return int(self.values.nbytes + self.segments.nbytes + self.columns.nbytes)

    def decode(self) -> np.ndarray:
        """The dense tensor. Raises ValueError where the indices do not fit its shape."""
        rows, width = prod(self.shape[:-1]), self.shape[-1]
        segments, columns = (np.asarray(found, np.int64) for found in (self.segments, self.columns))
        counts = np.diff(segments)
        if len(segments) != rows + 1 or segments[0] != 0 or np.any(counts < 0) or segments[-1] != len(columns):
            raise ValueError(f"the sparse rows of {self.shape} have wrong segments")
        if len(self.values) != len(columns) or (len(columns) and not 0 <= columns.min() <= columns.max() < width):
            raise ValueError(f"the sparse rows of {self.shape} have wrong columns")
        dense = np.zeros((rows, width), self.values.dtype)
        dense[np.repeat(np.arange(rows), counts), columns] = self.values
        return dense.reshape(self.shape)


def encode_rows(values: np.ndarray) -> SparseRows:
    """A tensor of at least one axis, row by row."""
    rows = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    kept = rows != 0
    segments = np.concatenate([[0], np.cumsum(np.count_nonzero(kept, axis=1))])
    columns = np.nonzero(kept)[1]
    return SparseRows(values.shape, rows[kept], _narrow(segments), _narrow(columns))


def _narrow(indices: np.ndarray) -> np.ndarray:
    return indices.astype(_narrowest(int(indices.max(initial=0))))


def _narrowest(most: int) -> type[np.integer[Any]]:
    return next(dtype for dtype, _, _ in _INDICES if most <= np.iinfo(dtype).max)


def stored_bytes(rows: int, width: int, kept: int, value_bytes: int) -> int:
    """Of `kept` values that are not zero, somewhere in `rows` of `width`, with their indices."""
    segment_bytes, column_bytes = (_narrowest(most)().itemsize for most in (kept, width - 1))
    return kept * (value_bytes + column_bytes) + (rows + 1) * segment_bytes


def to_schema(rows: SparseRows) -> Any:
    """The schema's `SparsityParametersT`."""
    dense = [schema.DimensionMetadataT(schema.DimensionType.DENSE, size) for size in rows.shape[:-1]]
    (segments_kind, segments), (columns_kind, columns) = (_vector(found) for found in (rows.segments, rows.columns))
    last = schema.DimensionMetadataT(
        format=schema.DimensionType.SPARSE_CSR,
        arraySegmentsType=segments_kind,
        arraySegments=segments,
        arrayIndicesType=columns_kind,
        arrayIndices=columns,
    )
    order = np.arange(len(rows.shape), dtype=np.int32)
    return schema.SparsityParametersT(traversalOrder=order, dimMetadata=[*dense, last])


def from_schema(sparsity: Any, shape: Sequence[int], values: np.ndarray) -> SparseRows:
    """What a file's `SparsityParameters` say of a tensor of `shape` that stores `values (n,)`. Raises ValueError for
    another form than the one written here."""
    rank = len(shape)
    order = sparsity.TraversalOrderAsNumpy() if sparsity.TraversalOrderLength() else np.empty(0)
    if rank == 0 or list(order) != list(range(rank)) or sparsity.BlockMapLength():
        raise ValueError("a sparse tensor is stored in another order than row by row")
    if sparsity.DimMetadataLength() != rank:
        raise ValueError(f"a sparse tensor tells {sparsity.DimMetadataLength()} axes of {rank}")
    axes = [sparsity.DimMetadata(axis) for axis in range(rank)]
    wanted = [schema.DimensionType.DENSE] * (rank - 1) + [schema.DimensionType.SPARSE_CSR]
    if [axis.Format() for axis in axes] != wanted or [axis.DenseSize() for axis in axes[:-1]] != list(shape[:-1]):
        raise ValueError("a sparse tensor is sparse along another axis than its last")
    segments = _indices(axes[-1].ArraySegmentsType(), axes[-1].ArraySegments())
    columns = _indices(axes[-1].ArrayIndicesType(), axes[-1].ArrayIndices())
    return SparseRows(tuple(shape), values, segments, columns)


def is_sparse(tensor: Any) -> bool:
    """Whether a file's tensor stores only what is not zero."""
    return tensor.Sparsity() is not None and bool(tensor.Sparsity().DimMetadataLength())


def _indices(kind: int, table: Any) -> np.ndarray:
    for _, code, name in _INDICES:
        if code == kind and table is not None:
            vector = getattr(schema, name)()
            vector.Init(table.Bytes, table.Pos)
            return np.asarray(vector.ValuesAsNumpy()) if vector.ValuesLength() else np.empty(0, np.int32)
    raise ValueError(f"a sparse tensor has indices of kind {kind}")


def _vector(indices: np.ndarray) -> tuple[int, Any]:
    (code, name) = next((code, name) for dtype, code, name in _INDICES if indices.dtype == dtype)
    return code, _IndexVector(indices, name)


class _IndexVector:
    """Indices that pack into one of the schema's vectors, at an offset divisible by 4 as it asks."""

    def __init__(self, values: np.ndarray, name: str) -> None:
        self.values = values
        self._name = name

    def Pack(self, builder: Any) -> Any:
        content = self.values.tobytes()
        builder.StartVector(self.values.itemsize, len(self.values), INDEX_ALIGNMENT)
        builder.head -= len(content)
        memoryview(builder.Bytes)[builder.head : builder.head + len(content)] = content
        vector = builder.EndVector()
        getattr(schema, f"{self._name}Start")(builder)
        getattr(schema, f"{self._name}AddValues")(builder, vector)
        return getattr(schema, f"{self._name}End")(builder)
