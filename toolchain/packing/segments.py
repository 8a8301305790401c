"""Where a model file keeps its constants: offset, length, element size and rows of each, as its bytes have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from toolchain.errors import OptionError, UnsupportedError
from toolchain.formats.onnx.reader import element_dtype
from toolchain.formats.tflite.flatbuffer import IDENTIFIER, TENSOR_TYPES
from toolchain.formats.tflite.parse import parse
from toolchain.graph import DType

_LEAST_BYTES = 64
"""What is shorter costs more to describe than it could save."""

_TFLITE_TYPES = {code: dtype for dtype, code in TENSOR_TYPES.items()}


@dataclass(frozen=True)
class Segment:
    """`length` bytes from `offset` on hold elements of `bits` bits, in so many rows of equal length."""

    name: str
    offset: int
    length: int
    bits: int
    rows: int

    @property
    def elements(self) -> int:
        return self.length * 8 // self.bits


def find_segments(content: bytes) -> tuple[Segment, ...]:
    """The constants of a .tflite or .onnx file in the order of their offsets, none over another; none at all where a
    TFLite file is beyond the reader. Raises OptionError where `content` is damaged or neither."""
    is_tflite = content[4:8] == IDENTIFIER
    found = sorted(_tflite(content) if is_tflite else _onnx(content), key=lambda segment: segment.offset)
    kept: list[Segment] = []
    for segment in found:
        if segment.length >= _LEAST_BYTES and (not kept or segment.offset >= kept[-1].offset + kept[-1].length):
            kept.append(segment)
    return tuple(kept)


def _segment(name: str, offset: int, length: int, dtype: DType, shape: tuple[int, ...]) -> Segment:
    bits = 4 if dtype is DType.INT4 else 8 * dtype.bytes
    # an odd count of 4-bit elements shares a byte with nothing, and a sparse tensor holds fewer than its shape says
    in_rows = length * 8 == prod(shape) * bits and len(shape) > 1 and shape[0] > 0
    return Segment(name, offset, length, bits, shape[0] if in_rows else 1)


def _tflite(content: bytes) -> Iterator[Segment]:
    try:
        parse(content)  # sees to it that every offset lies inside
    except UnsupportedError:
        return
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        name = tensor.Name().decode()
        shape = () if tensor.ShapeIsNone() else tuple(int(size) for size in tensor.ShapeAsNumpy())
        held, params = model.Buffers(tensor.Buffer()).DataAsNumpy(), tensor.Quantization()
        scales = params.ScaleAsNumpy() if params is not None else None
        for suffix, array, dtype in (("", held, _TFLITE_TYPES[tensor.Type()]), ("/scale", scales, DType.FLOAT32)):
            if isinstance(array, np.ndarray) and len(array):
                offset = array.__array_interface__["data"][0] - start
                yield _segment(name + suffix, offset, array.nbytes, dtype, shape if not suffix else ())


def _onnx(content: bytes) -> Iterator[Segment]:
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, ValueError) as error:
        raise OptionError("the file is neither ONNX nor TFLite, or damaged", hint="give a .onnx or .tflite") from error
    if not model.opset_import or not model.graph.output:
        raise OptionError("the file is neither ONNX nor TFLite, or damaged", hint="give a .onnx or .tflite")
    after = 0
    for tensor in model.graph.initializer:
        dtype = element_dtype(tensor.data_type)
        raw = tensor.raw_data
        if dtype is None or len(raw) < _LEAST_BYTES or tensor.data_location == TensorProto.EXTERNAL:
            continue
        # protobuf writes them in this order; where another writer did not, it is found from the start
        offset = content.find(raw, after)
        offset = content.find(raw) if offset < 0 else offset
        after = offset + len(raw)
        yield _segment(tensor.name, offset, len(raw), dtype, tuple(tensor.dims))
