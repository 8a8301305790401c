"""Files in their runtimes by plain means, ours and the peers' alike: nothing here knows who wrote a file.

Scales and zero points of integer in- and outputs are read from the file itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnx import numpy_helper

from toolchain.formats.tflite.native_log import without_notices

Array = NDArray[Any]
_ERRORS_ONLY = 3
WARM_UP = 5


class File(Protocol):
    """A loaded file of one image input and one output."""

    def given(self, image: Array) -> Array:
        """The float image (1, C, H, W) in the type and layout the file takes."""
        ...

    def invoke(self, given: Array) -> Array:
        """What the runtime gives for it."""
        ...

    def logits(self, image: Array) -> Array:
        """Float results for a float image."""
        ...


def load(path: Path) -> File:
    """The file in its runtime on one thread, as the runtime takes it by default."""
    return OnnxFile(path) if path.suffix == ".onnx" else TfliteFile(path)


class _Quantized:
    """Conversion at the two ends: (scale, zero point), or None where the end is in float."""

    takes: tuple[float, int] | None = None
    gives: tuple[float, int] | None = None
    dtype: np.dtype[Any] = np.dtype(np.float32)

    def _integers(self, image: Array) -> Array:
        if self.takes is None:
            return image
        limits = np.iinfo(self.dtype)
        scale, zero = self.takes
        integers: Array = np.clip(np.rint(image / scale) + zero, limits.min, limits.max).astype(self.dtype)
        return integers

    def _floats(self, result: Array) -> Array:
        if self.gives is None:
            return result
        scale, zero = self.gives
        return (result.astype(np.float32) - zero) * np.float32(scale)


class OnnxFile(_Quantized):
    """A file in onnxruntime."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        graph = onnx.load(path).graph
        element = graph.input[0].type.tensor_type.elem_type
        self.dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] == self._input:
                self.takes = _affine(node, constants)
            if node.op_type == "QuantizeLinear" and node.output[0] == self._output:
                self.gives = _affine(node, constants)

    def given(self, image: Array) -> Array:
        return self._integers(image)

    def invoke(self, given: Array) -> Array:
        return np.asarray(self._session.run([self._output], {self._input: given})[0])

    def logits(self, image: Array) -> Array:
        return self._floats(self.invoke(self.given(image)))


def _affine(node: Any, constants: Mapping[str, Array]) -> tuple[float, int]:
    return float(constants[node.input[1]]), int(constants[node.input[2]])


class TfliteFile(_Quantized):
    """A file in the LiteRT interpreter with its default kernels, XNNPACK where it has one."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        with without_notices():
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        taken, given = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        self._input, self._output = taken["index"], given["index"]
        self._channels_last = taken["shape"][-1] == 3
        self.dtype = np.dtype(taken["dtype"])
        self.takes = taken["quantization"] if self.dtype.kind != "f" else None
        self.gives = given["quantization"] if np.dtype(given["dtype"]).kind != "f" else None

    def given(self, image: Array) -> Array:
        image = image.transpose(0, 2, 3, 1) if self._channels_last else image
        return np.ascontiguousarray(self._integers(image))

    def invoke(self, given: Array) -> Array:
        self._interpreter.set_tensor(self._input, given)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._output))

    def logits(self, image: Array) -> Array:
        return self._floats(self.invoke(self.given(image)))


def interleaved_ms(calls: Mapping[str, Callable[[], Any]], rounds: int, runs: int) -> dict[str, list[float]]:
    """Per name and round the median of `runs` calls.

    Rounds go through the names in turn, so that a machine that slows down or speeds up meets all of them.
    """
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()  # what the one before has left in the caches
            found[name].append(statistics.median(_timed(call) for _ in range(runs)))
    return found


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of ours divided by theirs in the same round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _timed(call: Callable[[], Any]) -> float:
    before = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - before)
