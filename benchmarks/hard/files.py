"""Files of any number of in- and outputs in their runtimes, ours and the peers' alike, as a `Predict`.

Scales and zero points of integer ends are read from the file itself. A file may hold an axis order of its own: an array
is turned until its shape fits the file's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import numpy_helper

from hard.network import Array, Predict
from toolchain.formats.tflite.native_log import without_notices

_ERRORS_ONLY = 3


class End(NamedTuple):
    """An in- or output: the file's shape and type; the affine parameters where it is quantized."""

    name: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: tuple[float, int] | None


class OnnxFile:
    """A file in onnxruntime on one thread."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(path).graph
        constants = {tensor.name: tensor for tensor in graph.initializer}
        affine = {}
        for node in graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in constants:
                end = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
                # a zero point that is not there is 0
                found = [numpy_helper.to_array(constants[name]) for name in node.input[1:3]]
                if found[0].size == 1:
                    affine[end] = (float(found[0].item()), int(found[1].item()) if len(found) > 1 else 0)
        self.inputs = [_onnx_end(value, affine) for value in graph.input if value.name not in constants]
        self.outputs = [_onnx_end(value, affine) for value in graph.output]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        given = {end.name: array for end, array in zip(self.inputs, inputs, strict=True)}
        found: list[Array] = self._session.run([end.name for end in self.outputs], given)
        return found


def _onnx_end(value: Any, affine: dict[str, tuple[float, int]]) -> End:
    kind = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    shape = tuple(dim.dim_value or 1 for dim in kind.shape.dim)
    return End(value.name, shape, dtype, affine.get(value.name) if dtype.kind in "iu" else None)


class TfliteFile:
    """A file in the LiteRT interpreter on one thread with its default kernels."""

    def __init__(self, path: Path) -> None:
        with without_notices():
            self._interpreter = Interpreter(model_path=str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        signatures = self._interpreter.get_signature_list()
        taken, given = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if signatures:  # there names tell the order, where the subgraph may have another
            runner = self._interpreter.get_signature_runner(next(iter(signatures)))
            taken = _in_order(taken, runner.get_input_details())
            given = _in_order(given, runner.get_output_details())
        self.inputs, self.outputs = [_tflite_end(end) for end in taken], [_tflite_end(end) for end in given]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        for end, array in zip(self.inputs, inputs, strict=True):
            self._interpreter.set_tensor(end.name, array)
        self._interpreter.invoke()
        return [np.array(self._interpreter.get_tensor(end.name)) for end in self.outputs]


def _in_order(details: list[dict[str, Any]], signature: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """`details` in the order of numbered names (args_0, output_1); as they are where names are not numbered."""
    if not all(name.rpartition("_")[2].isdigit() for name in signature):
        return details
    indices = [signature[name]["index"] for name in sorted(signature, key=lambda name: int(name.rpartition("_")[2]))]
    return sorted(details, key=lambda end: indices.index(end["index"]) if end["index"] in indices else len(indices))


def _tflite_end(end: dict[str, Any]) -> End:
    dtype = np.dtype(end["dtype"])
    scale, zero = end["quantization"]
    affine = (float(scale), int(zero)) if dtype.kind in "iu" and scale else None
    return End(end["index"], tuple(int(size) for size in end["shape"]), dtype, affine)


def load_file(path: Path) -> OnnxFile | TfliteFile:
    return OnnxFile(path) if path.suffix == ".onnx" else TfliteFile(path)


def predictor(path: Path, shapes: Sequence[tuple[int, ...]]) -> Predict:
    """The file as a `Predict`, sample by sample; `shapes` are those of the module's outputs for one sample."""
    file = load_file(path)

    def predict(inputs: Sequence[Array]) -> list[Array]:
        found = []
        for number in range(len(inputs[0])):
            given = [_given(array[number : number + 1], end) for array, end in zip(inputs, file.inputs, strict=True)]
            results = zip(file.run(given), file.outputs, shapes, strict=True)
            found.append([_turned(_real(array, end), shape) for array, end, shape in results])
        return [np.concatenate(column) for column in zip(*found, strict=True)]

    return predict


def _given(array: Array, end: End) -> Array:
    turned = _turned(array, end.shape)
    if end.affine is None:
        return np.ascontiguousarray(turned.astype(end.dtype))
    limits, (scale, zero) = np.iinfo(end.dtype), end.affine
    return np.clip(np.rint(turned / scale) + zero, limits.min, limits.max).astype(end.dtype)


def _real(array: Array, end: End) -> Array:
    if end.affine is None:
        return array
    scale, zero = end.affine
    return (array.astype(np.float32) - zero) * np.float32(scale)


def _turned(array: Array, shape: tuple[int, ...]) -> Array:
    """The array with its axes moved to have this shape: channels last, or first again, are tried before all others."""
    if array.shape == shape:
        return array
    axes = tuple(range(1, array.ndim))
    liked = [(0, *axes[1:], axes[0]), (0, axes[-1], *axes[:-1])] if axes else []
    for order in (*liked, *permutations(range(array.ndim))):
        if array.transpose(order).shape == shape:
            return array.transpose(order)
    return array.reshape(shape)


def float_ops(path: Path) -> dict[str, int]:
    """Ops of the file that compute on floats, by name: conversions of integer to float and back are not counted.

    Of an ONNX file in QDQ form that is what no quantization surrounds, by its operators' outputs.
    """
    if path.suffix == ".onnx":
        return _float_onnx(path)
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    kinds = {tensor["index"]: np.dtype(tensor["dtype"]).kind for tensor in interpreter.get_tensor_details()}
    ops = interpreter._get_ops_details()
    convert = ("QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "SPLIT", "PAD")
    floating = [op for op in ops if any(kinds.get(i) == "f" for i in op["outputs"]) and op["op_name"] not in convert]
    return dict(sorted(Counter(op["op_name"] for op in floating).items()))


def _float_onnx(path: Path) -> dict[str, int]:
    graph = onnx.load(path).graph
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    moved = ("QuantizeLinear", "DequantizeLinear", "Constant", "Cast", "DynamicQuantizeLinear", "Identity", "Pad",
             "Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Expand", "Split")  # fmt: skip
    found: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in moved or node.op_type.endswith("Integer") or node.op_type.startswith("QLinear"):
            continue
        inputs = [name for name in node.input if name and name not in constants]
        if not (all(name in dequantized for name in inputs) and any(name in quantized for name in node.output)):
            found[node.op_type] += 1
    return dict(sorted(found.items()))
