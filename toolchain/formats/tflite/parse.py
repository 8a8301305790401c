"""A TFLite file taken apart: every offset and index is checked before it is followed.

What a damaged file can hold ends in one OptionError; what is sound but beyond the toolchain (several
subgraphs, custom operators, other element types) in an UnsupportedError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from toolchain.errors import OptionError, UnsupportedError
from toolchain.formats.artifact import TensorFacts
from toolchain.formats.tflite.blockwise import details_of, read_scales
from toolchain.formats.tflite.flatbuffer import IDENTIFIER, LIMIT_BYTES, SCHEMA_VERSION, TENSOR_TYPES
from toolchain.formats.tflite.metadata import KEY, RUNTIME_KEY, Mapped
from toolchain.formats.tflite.sparsity import from_schema, is_sparse
from toolchain.graph import DType
from toolchain.quantization import unpack_int4

OPERATOR_NAMES: Final = {c: name for name, c in vars(schema.BuiltinOperator).items() if isinstance(c, int)}
_DTYPES: Final = {code: dtype for dtype, code in TENSOR_TYPES.items()}
_DAMAGE: Final = (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, KeyError)

# a kernel divides by these; a file that says 0 would end the process
_POSITIVE: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "CONV_2D": (schema.Conv2DOptions, ("StrideH", "StrideW", "DilationHFactor", "DilationWFactor")),
    "DEPTHWISE_CONV_2D": (
        schema.DepthwiseConv2DOptions,
        ("StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "DepthMultiplier"),
    ),
    "MAX_POOL_2D": (schema.Pool2DOptions, ("StrideH", "StrideW", "FilterHeight", "FilterWidth")),
    "AVERAGE_POOL_2D": (schema.Pool2DOptions, ("StrideH", "StrideW", "FilterHeight", "FilterWidth")),
    "TRANSPOSE_CONV": (schema.TransposeConvOptions, ("StrideH", "StrideW")),
    "DEPTH_TO_SPACE": (schema.DepthToSpaceOptions, ("BlockSize",)),
    "SPACE_TO_DEPTH": (schema.SpaceToDepthOptions, ("BlockSize",)),
}


@dataclass(frozen=True)
class Operator:
    """One operator: its name in the schema, version, and indices of tensors (-1: an input left out)."""

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class ParsedModel:
    """Tensors in the file's order, constants (views of the file) by tensor index, operators in order.

    `inputs` and `outputs` are (name in the signature, tensor index).
    """

    tensors: tuple[TensorFacts, ...]
    values: Mapping[int, np.ndarray]
    operators: tuple[Operator, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    mapped: Mapped
    is_mapped: bool = True
    """Whether the file tells its layouts; else `mapped` says the usual."""
    oldest_runtime: str | None = None
    """The first release of TensorFlow Lite that runs the file, where it says so."""


def parse(content: bytes) -> ParsedModel:
    """Take `content` apart. Raises OptionError or UnsupportedError, each with one line."""
    if not content:
        raise OptionError("the TFLite file is empty")
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise OptionError("this is no TFLite file: its identifier is not TFL3")
    try:
        return _Reader(content).read()
    except _DAMAGE as error:
        raise OptionError(f"the TFLite file is damaged: {error}") from error


class _Reader:
    """Follows the offsets of one file."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._tensors: list[TensorFacts] = []
        self._declared: list[Any] = []
        self._buffers: list[np.ndarray] = []

    def read(self) -> ParsedModel:
        model = self._table(schema.Model.GetRootAs(self._content, 0))
        if model.Version() != SCHEMA_VERSION:
            raise ValueError(f"schema version {model.Version()}")
        if model.SubgraphsLength() != 1:
            raise UnsupportedError(f"the TFLite file holds {model.SubgraphsLength()} subgraphs, not one")
        graph = self._table(model.Subgraphs(0))
        buffers = self._buffers = [self._bytes(buffer) for buffer in self._tables(model.BuffersLength(), model.Buffers)]
        self._declared = self._tables(graph.TensorsLength(), graph.Tensors)
        values = {}
        for index, tensor in enumerate(self._declared):
            constant = self._add_tensor(tensor, buffers[tensor.Buffer()])
            if constant is not None:
                values[index] = constant
        codes = [self._code(code) for code in self._tables(model.OperatorCodesLength(), model.OperatorCodes)]
        operators = self._tables(graph.OperatorsLength(), graph.Operators)
        return ParsedModel(
            tuple(self._tensors),
            values,
            tuple(self._operator(operator, codes) for operator in operators),
            self._ends(model, graph.InputsAsNumpy(), "Inputs"),
            self._ends(model, graph.OutputsAsNumpy(), "Outputs"),
            *self._mapped(model, buffers),
            self._oldest_runtime(model, buffers),
        )

    def _table(self, table: Any) -> Any:
        """`table`, after its header has been found to lie inside the file."""
        position = table._tab.Pos
        start = position - struct.unpack_from("<i", self._content, position)[0]
        if not 0 <= start <= len(self._content) - 4:
            raise ValueError(f"a table at {position} has its fields outside the file")
        fields, extent = struct.unpack_from("<HH", self._content, start)
        if fields < 4 or fields % 2 or extent < 4 or position + extent > len(self._content):
            raise ValueError(f"the table at {position} cannot be read")
        return table

    def _tables(self, count: int, get: Callable[[int], Any]) -> list[Any]:
        # each takes 4 bytes in its vector and at least 4 of its own
        if count > len(self._content) // 8:
            raise ValueError(f"a vector of {count} tables is longer than the file")
        return [self._table(get(index)) for index in range(count)]

    def _bytes(self, buffer: Any) -> np.ndarray:
        if buffer.Offset() > 1:
            raise UnsupportedError("the TFLite file keeps constants outside its flatbuffer")
        content = np.empty(0, np.uint8) if buffer.DataIsNone() else buffer.DataAsNumpy()
        if not isinstance(content, np.ndarray):
            raise ValueError("a buffer cannot be read")
        return content

    def _code(self, code: Any) -> tuple[str, int]:
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if builtin == schema.BuiltinOperator.CUSTOM:
            raise UnsupportedError(f"the TFLite file holds a custom operator {code.CustomCode()!r}")
        return OPERATOR_NAMES[builtin], code.Version()

    def _add_tensor(self, tensor: Any, buffer: np.ndarray) -> np.ndarray | None:
        name = (tensor.Name() or b"").decode(errors="strict")
        if tensor.Type() not in _DTYPES:
            raise UnsupportedError(f"tensor {name!r} of the TFLite file is of element type {tensor.Type()}")
        dtype = _DTYPES[tensor.Type()]
        shape = () if tensor.ShapeIsNone() else tuple(int(size) for size in tensor.ShapeAsNumpy())
        if (shape and min(shape) < 0) or dtype.stored_bytes(prod(shape)) > LIMIT_BYTES:
            raise ValueError(f"tensor {name!r} has the shape {shape}")
        scale, zero_point, axis, block = self._quantization(tensor, name, dtype, shape)
        constant, rows = None, None
        if len(buffer) and is_sparse(self._table(tensor)):
            self._table(tensor.Sparsity())
            rows = from_schema(tensor.Sparsity(), shape, buffer.view(dtype.numpy))
            constant = rows.decode()
        elif len(buffer):
            if len(buffer) != dtype.stored_bytes(prod(shape)):
                raise ValueError(f"{name!r} has {len(buffer)} bytes for {dtype}{list(shape)}")
            flat = unpack_int4(buffer, prod(shape)) if dtype is DType.INT4 else buffer.view(dtype.numpy)
            constant = flat.reshape(shape)
        facts = TensorFacts(name, dtype, shape, constant is not None, scale, zero_point, axis, block=block)
        stored = None if rows is None else len(rows.values)
        facts = replace(facts, bytes=rows.bytes if rows else len(buffer), stored_values=stored)
        self._tensors.append(facts)
        return constant

    def _quantization(
        self, tensor: Any, name: str, dtype: DType, shape: Sequence[int]
    ) -> tuple[tuple[float, ...], tuple[int, ...], int | None, int | None]:
        params = tensor.Quantization()
        if params is not None and (details := details_of(self._table(params))) is not None:
            scale, block = self._block_scales(self._table(details), name, shape)
            return scale, (0,) * len(scale), 0, block
        if params is None or params.ScaleLength() == 0:
            return (), (), None, None
        scale = tuple(params.ScaleAsNumpy().tolist())
        zero_point = tuple(params.ZeroPointAsNumpy().tolist()) if params.ZeroPointLength() else (0,) * len(scale)
        axis = params.QuantizedDimension()
        per_channel = len(scale) > 1
        if len(zero_point) != len(scale) or (per_channel and len(scale) != shape[axis]):
            raise ValueError(f"{name!r} of shape {shape} has {len(scale)} scales and {len(zero_point)} zero points")
        self._check_scales(name, scale)
        if not dtype.is_float and dtype is not DType.BOOL:
            limits = np.iinfo(dtype.numpy)
            if not limits.min <= min(zero_point) <= max(zero_point) <= limits.max:
                raise ValueError(f"{name!r} has a zero point beyond {dtype}")
        return scale, zero_point, axis if per_channel else None, None

    def _block_scales(self, details: Any, name: str, shape: Sequence[int]) -> tuple[tuple[float, ...], int]:
        at = details.Scales()
        if not 0 <= at < len(self._declared):
            raise ValueError(f"{name!r} has its scales in a tensor that does not exist")
        scales = self._declared[at]
        found, block = read_scales(details, shape, scales, self._buffers[scales.Buffer()])
        self._check_scales(name, found)
        return found, block

    def _check_scales(self, name: str, scale: Sequence[float]) -> None:
        if not all(0 < value < float("inf") for value in scale):
            raise ValueError(f"{name!r} has a scale that is not positive and finite")

    def _operator(self, operator: Any, codes: Sequence[tuple[str, int]]) -> Operator:
        name, version = codes[operator.OpcodeIndex()]
        if name in _POSITIVE and operator.BuiltinOptions() is not None:
            kind, fields = _POSITIVE[name]
            options = kind()
            options.Init(self._content, operator.BuiltinOptions().Pos)
            self._table(options)
            wrong = [field for field in fields if not 0 < getattr(options, field)() < 2**16]
            if wrong:
                raise ValueError(f"{name} has {', '.join(wrong)} out of bounds")
        inputs = self._indices(operator.InputsAsNumpy(), lowest=-1)
        outputs = self._indices(operator.OutputsAsNumpy())
        if not outputs or not inputs or inputs[0] < 0:
            raise ValueError(f"{name} has no in- or output")
        return Operator(name, version, inputs, outputs)

    def _indices(self, vector: Any, lowest: int = 0) -> tuple[int, ...]:
        found = tuple(int(index) for index in vector) if isinstance(vector, np.ndarray) else ()
        if any(not lowest <= index < len(self._tensors) for index in found):
            raise ValueError("an operator, in- or output names a tensor that does not exist")
        return found

    def _ends(self, model: Any, vector: Any, kind: str) -> tuple[tuple[str, int], ...]:
        """In- or outputs under the names of the first signature, or those of their tensors."""
        signed = {}
        if model.SignatureDefsLength():
            signature = self._table(model.SignatureDefs(0))
            entries = self._tables(getattr(signature, f"{kind}Length")(), getattr(signature, kind))
            signed = {entry.TensorIndex(): entry.Name().decode() for entry in entries}
        return tuple((signed.get(i, self._tensors[i].name), i) for i in self._indices(vector))

    def _mapped(self, model: Any, buffers: Sequence[np.ndarray]) -> tuple[Mapped, bool]:
        content = self._metadata(model, buffers, KEY)
        return (Mapped(), False) if content is None else (Mapped.from_bytes(content), True)

    def _oldest_runtime(self, model: Any, buffers: Sequence[np.ndarray]) -> str | None:
        content = self._metadata(model, buffers, RUNTIME_KEY)
        return None if content is None else content.rstrip(b"\0").decode("ascii", "replace")

    def _metadata(self, model: Any, buffers: Sequence[np.ndarray], key: str) -> bytes | None:
        for entry in self._tables(model.MetadataLength(), model.Metadata):
            if entry.Name() == key.encode():
                return bytes(buffers[entry.Buffer()].tobytes())
        return None
