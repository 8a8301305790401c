"""The values a graph is made of: element types, tensor types, where a node came from.

Shapes are written in torch's logical order, `(N, C, H, W)` for images; no other layout exists in this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Any, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int, ...]
Attribute: TypeAlias = int | float | bool | str | tuple[int, ...]


class DType(StrEnum):
    """Element types, named as numpy names them; int4, which numpy lacks, is held as int8 and stored two a byte."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT4 = "int4"
    INT8 = "int8"
    UINT8 = "uint8"
    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(np.int8 if self is DType.INT4 else self.value)

    @property
    def bytes(self) -> int:
        return self.numpy.itemsize

    def stored_bytes(self, elements: int) -> int:
        """Bytes that so many elements take in a file."""
        return (elements + 1) // 2 if self is DType.INT4 else elements * self.bytes

    @property
    def is_float(self) -> bool:
        return self in (DType.FLOAT32, DType.FLOAT16)

    @classmethod
    def of(cls, array: np.ndarray) -> DType:
        return cls(array.dtype.name)


@dataclass(frozen=True)
class TensorType:
    """Element type and static shape of one tensor."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.bytes

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Source:
    """Where in the user's model a node was written: module path, file and line."""

    module: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else ""
        return " at ".join(part for part in (self.module or "(top level)", place) if part)


@dataclass(frozen=True)
class Value:
    """A named graph input."""

    name: str
    type: TensorType
