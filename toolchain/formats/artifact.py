"""What both formats have in common: the choice of in- and output type, what a file is found to hold, how it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from toolchain.graph import DType


class Format(StrEnum):
    """A file format, by its file name extension."""

    ONNX = "onnx"
    TFLITE = "tflite"


class InOut(StrEnum):
    """Element type of a quantized file's in- and outputs."""

    INTEGER = "integer"
    FLOAT = "float"


class SparseWeights(StrEnum):
    """Which weights full of zeros a TFLite file stores as sparse tensors: those whose zeros a kernel then skips, all
    that take fewer bytes so, or none."""

    AUTO = "auto"
    SMALLER = "smaller"
    NEVER = "never"


@dataclass(frozen=True)
class TensorFacts:
    """One tensor as found in a file; `shape` is the file's own (physical) shape, `bytes` its stored size if
    constant. `stored_values` counts the values of a constant of which only what is not zero is stored. With `block`,
    so many neighbours along the other axis than `axis` share a scale; scales go channel by channel."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    is_constant: bool
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int | None = None
    bytes: int = 0
    stored_values: int | None = None
    block: int | None = None

    @property
    def is_sparse(self) -> bool:
        return self.stored_values is not None


@dataclass(frozen=True)
class OperatorFacts:
    """One operator as found in a file, under the format's own name; `inputs` and `outputs` name tensors, a left out one
    is empty."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ArtifactFacts:
    """What reading a file back finds: op counts under the format's own names, tensors by name, in- and outputs, and
    the operators in the file's order."""

    format: str
    ops: Mapping[str, int]
    tensors: Mapping[str, TensorFacts]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bytes: int
    operators: tuple[OperatorFacts, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of a file as a file of its own, in the same format. `inputs` and `outputs` name the whole file's tensors,
    and in TFLite the piece's own index of each; `op` is what makes the outputs."""

    op: str
    content: bytes
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]


class Runner(Protocol):
    """A loaded file. Arrays go in and come out in torch's logical layout (NCHW), batch size as traced, or any where
    the file has a dynamic batch.

    A quantized file with integer in- and outputs takes and gives the integers of the specification (int8), even where
    the file stores them shifted to uint8; one with float in- and outputs takes and gives float32.
    """

    @property
    def name(self) -> str: ...

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs in the graph's order."""
        ...

    def tensors(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Every activation the runtime lets one see, by the graph's tensor names: integers of the specification where
        the tensor is quantized, float32 where it is not."""
        ...
