"""A TFLite model under construction, and its bytes (the schema of `ai_edge_litert`, identifier `TFL3`).

Constants are copied once, straight into the finished buffer, each at an offset divisible by 16 as the
schema's `force_align` asks (the interpreter maps the file and hands the bytes to kernels as they are).
Constants of equal bytes are stored once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from toolchain.errors import BudgetError, UnsupportedError
from toolchain.formats.tflite.blockwise import to_details
from toolchain.formats.tflite.sparsity import encode_rows, to_schema
from toolchain.graph import DType
from toolchain.quantization import AffineParams, half, pack_int4

IDENTIFIER: Final = b"TFL3"
SCHEMA_VERSION: Final = 3
ALIGNMENT: Final = 16
LIMIT_BYTES: Final = 2**31 - 1
SIGNATURE: Final = "serving_default"
HALF_SUFFIX: Final = "/half"

TENSOR_TYPES: Final[dict[DType, int]] = {
    DType.FLOAT32: schema.TensorType.FLOAT32,
    DType.FLOAT16: schema.TensorType.FLOAT16,
    DType.INT4: schema.TensorType.INT4,
    DType.INT8: schema.TensorType.INT8,
    DType.UINT8: schema.TensorType.UINT8,
    DType.INT16: schema.TensorType.INT16,
    DType.INT32: schema.TensorType.INT32,
    DType.INT64: schema.TensorType.INT64,
    DType.BOOL: schema.TensorType.BOOL,
}


@dataclass(frozen=True)
class Operand:
    """A tensor of the file: its index and what it was declared with; `shape` is physical."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: DType
    params: AffineParams | None = None

    @property
    def is_integer(self) -> bool:
        return self.params is not None


ABSENT: Final = Operand(-1, "", (), DType.FLOAT32)
"""Stands for an optional input that an operator is not given."""


class ModelBuilder:
    """Collects tensors, operators and constants; `finish` gives the bytes.

    With `is_half`, every float32 tensor is declared and stored as float16; `widened` gives the in- and outputs back
    their float32.
    """

    def __init__(self, *, is_half: bool = False) -> None:
        self._is_half = is_half
        self._tensors: list[Any] = []
        self._names: set[str] = set()
        self._operators: list[Any] = []
        self._index_bytes = 0
        self._codes: dict[tuple[int, int], int] = {}
        # buffer 0 is empty and is what tensors without a constant point at
        self._buffers: list[Any] = [schema.BufferT()]
        self._stored: dict[tuple[int, bytes, bytes], list[int]] = {}

    @property
    def codes(self) -> tuple[tuple[int, int], ...]:
        """(builtin operator, version) of every kind of operator used."""
        return tuple(self._codes)

    @property
    def tensors(self) -> Sequence[Any]:
        """The schema's tensor objects, by index."""
        return self._tensors

    @property
    def operators(self) -> Sequence[Any]:
        """The schema's operator objects, in order."""
        return self._operators

    def values(self, index: int) -> np.ndarray:
        """The bytes of the constant `index`."""
        content: np.ndarray = self._buffers[self._tensors[index].buffer].data
        return content

    def exchange_values(self, index: int, values: np.ndarray) -> None:
        """Give the constant `index` other values of the same shape and type."""
        tensor = self._tensors[index]
        if sum(other.buffer == tensor.buffer for other in self._tensors) == 1:
            self._buffers[tensor.buffer] = _AlignedBuffer(data=np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        else:
            tensor.buffer = self.add_buffer(values)

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: DType,
        params: AffineParams | None,
        values: np.ndarray | None = None,
        *,
        is_variable: bool = False,
        is_sparse: bool = False,
    ) -> Operand:
        """Declare a tensor; with `values` it is a constant, stored without its zeros where it `is_sparse`; with
        `is_variable` a state that operators change. A name already taken is numbered. Raises UnsupportedError for
        values that float16 cannot hold."""
        name = self._unique(name)
        declared = DType.FLOAT16 if self._is_half and dtype is DType.FLOAT32 else dtype
        if values is not None and declared is not dtype:
            values = _halved(name, values)
        rows = encode_rows(values) if is_sparse and values is not None else None
        values = values if rows is None else rows.values
        quantization = None if params is None else self._quantization(name, params)
        tensor = schema.TensorT(
            shape=np.asarray(shape, np.int32),
            type=TENSOR_TYPES[declared],
            buffer=0 if values is None else self.add_buffer(pack_int4(values) if dtype is DType.INT4 else values),
            name=name,
            quantization=quantization,
            sparsity=None if rows is None else to_schema(rows),
            hasRank=True,
            isVariable=is_variable,
        )
        self._index_bytes += 0 if rows is None else rows.bytes
        self._tensors.append(tensor)
        return Operand(len(self._tensors) - 1, name, tuple(shape), dtype, params)

    def _quantization(self, name: str, params: AffineParams) -> Any:
        if params.block is None:
            return _SharedQuantization(params)
        scales = params.scale.astype(np.float16)
        held = self.add_tensor(f"{name}/scales", scales.shape, DType.FLOAT16, None, scales)
        return to_details(params.block, held.index)

    def add_operator(
        self, code: int, version: int, inputs: Sequence[Operand], outputs: Sequence[Operand], options: Any
    ) -> None:
        """Append an operator; `options` is the schema's options object or None."""
        operator = schema.OperatorT(
            opcodeIndex=self._codes.setdefault((code, version), len(self._codes)),
            inputs=np.asarray([operand.index for operand in inputs], np.int32),
            outputs=np.asarray([operand.index for operand in outputs], np.int32),
        )
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._operators.append(operator)

    def widened(
        self, inputs: Sequence[tuple[str, Operand]], outputs: Sequence[tuple[str, Operand]]
    ) -> tuple[list[tuple[str, Operand]], list[tuple[str, Operand]]]:
        """The in- and outputs of a float16 model as float32 tensors of the same names, with a CAST each."""
        operators, self._operators = self._operators, []
        entered = [(key, self._widened(operand, is_input=True)) for key, operand in inputs]
        entering, self._operators = self._operators, []
        left = [(key, self._widened(operand, is_input=False)) for key, operand in outputs]
        self._operators = [*entering, *operators, *self._operators]
        return entered, left

    def _widened(self, operand: Operand, *, is_input: bool) -> Operand:
        inner = self._tensors[operand.index]
        if inner.type != TENSOR_TYPES[DType.FLOAT16]:
            return operand
        self._names.remove(inner.name)
        inner.name = self._unique(inner.name + HALF_SUFFIX)
        self._is_half = False
        outer = self.add_tensor(operand.name, operand.shape, DType.FLOAT32, None)
        self._is_half = True
        source, result = (outer, operand) if is_input else (operand, outer)
        types = (TENSOR_TYPES[DType.FLOAT32], TENSOR_TYPES[DType.FLOAT16])
        options = schema.CastOptionsT(*(types if is_input else types[::-1]))
        self.add_operator(schema.BuiltinOperator.CAST, 1, [source], [result], options)
        return outer

    def add_buffer(self, values: np.ndarray) -> int:
        """Index of the buffer with these bytes, which are stored once however often they are added."""
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        ends = (len(content), content[:64].tobytes(), content[-64:].tobytes())
        alike = self._stored.setdefault(ends, [])
        for index in alike:
            if np.array_equal(content, self._buffers[index].data):
                return index
        alike.append(len(self._buffers))
        self._buffers.append(_AlignedBuffer(data=content))
        return alike[-1]

    def finish(
        self,
        name: str,
        inputs: Sequence[tuple[str, Operand]],
        outputs: Sequence[tuple[str, Operand]],
        metadata: Mapping[str, bytes],
    ) -> bytes:
        """The file's bytes. `inputs` and `outputs` map the names of the signature to tensors."""
        entries = [
            schema.MetadataT(name=key, buffer=self.add_buffer(np.frombuffer(value, np.uint8)))
            for key, value in metadata.items()
        ]
        subgraph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=np.asarray([operand.index for _, operand in inputs], np.int32),
            outputs=np.asarray([operand.index for _, operand in outputs], np.int32),
            operators=self._operators,
            name=name,
        )
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            operatorCodes=[_operator_code(code, version) for code, version in self._codes],
            subgraphs=[subgraph],
            description="edge-toolchain",
            buffers=self._buffers,
            metadata=entries,
            signatureDefs=[_signature(inputs, outputs)],
        )
        return self._pack(model)

    def _pack(self, model: Any) -> bytes:
        constant_bytes = sum(len(buffer.data) + 2 * ALIGNMENT for buffer in self._buffers[1:])
        # more than the tables take, so that the builder never has to grow and copy what it holds
        rest_bytes = 4096 + 512 * (len(self._tensors) + len(self._operators)) + self._vector_bytes()
        if constant_bytes + rest_bytes > LIMIT_BYTES:
            raise BudgetError(
                f"the TFLite file would take {constant_bytes / 2**30:.2f} GiB; the format ends at 2 GiB",
                hint="quantize the weights to int8, or split the model",
            )
        builder = _Builder(constant_bytes + rest_bytes)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(memoryview(builder.Bytes)[builder.Head() :])

    def _vector_bytes(self) -> int:
        found = (tensor.quantization for tensor in self._tensors)
        quantized = [quantization for quantization in found if isinstance(quantization, _SharedQuantization)]
        names = sum(4 * len(tensor.name) for tensor in self._tensors)
        return names + self._index_bytes + sum(int(q.scale.nbytes + q.zeroPoint.nbytes) for q in quantized)

    def _unique(self, name: str) -> str:
        wanted, count = name, 0
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """A builder that remembers what may be pointed at again."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.shared: dict[Any, Any] = {}


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes are copied once, to an offset divisible by 16."""

    def Pack(self, builder: Any) -> Any:
        size = len(self.data)
        builder.StartVector(1, size, ALIGNMENT)
        builder.head -= size
        memoryview(builder.Bytes)[builder.head : builder.head + size] = self.data.data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class _SharedQuantization(schema.QuantizationParametersT):  # type: ignore[misc]
    """Parameters whose vectors, and the table itself, are written once however many tensors have them.

    The zero points of weights and biases, 8 bytes a channel and all zero, would be 6 % of EfficientNet-Lite0.
    """

    def __init__(self, params: AffineParams) -> None:
        super().__init__(
            scale=np.ascontiguousarray(params.scale.reshape(-1), np.float32),
            zeroPoint=np.ascontiguousarray(params.zero_point.reshape(-1), np.int64),
            quantizedDimension=params.axis or 0,
        )

    def Pack(self, builder: Any) -> Any:
        scale, zero_point = (_shared_vector(builder, vector) for vector in (self.scale, self.zeroPoint))
        key = (scale, zero_point, self.quantizedDimension)
        if key not in builder.shared:
            schema.QuantizationParametersStart(builder)
            schema.QuantizationParametersAddScale(builder, scale)
            schema.QuantizationParametersAddZeroPoint(builder, zero_point)
            schema.QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
            builder.shared[key] = schema.QuantizationParametersEnd(builder)
        return builder.shared[key]


def _halved(name: str, values: np.ndarray) -> np.ndarray:
    try:
        return half(values)
    except ValueError as error:
        raise UnsupportedError(f"{name}: {error}", hint="keep the model in float32, or scale it") from error


def _shared_vector(builder: Any, vector: np.ndarray) -> Any:
    key = (vector.dtype.str, vector.tobytes())
    if key not in builder.shared:
        builder.shared[key] = builder.CreateNumpyVector(vector)
    return builder.shared[key]


def _operator_code(code: int, version: int) -> Any:
    # runtimes before 2.4 read the 8-bit field, later ones the larger of the two
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)


def _signature(inputs: Sequence[tuple[str, Operand]], outputs: Sequence[tuple[str, Operand]]) -> Any:
    def maps(named: Sequence[tuple[str, Operand]]) -> list[Any]:
        return [schema.TensorMapT(name=key, tensorIndex=operand.index) for key, operand in dict(named).items()]

    return schema.SignatureDefT(inputs=maps(inputs), outputs=maps(outputs), signatureKey=SIGNATURE, subgraphIndex=0)
