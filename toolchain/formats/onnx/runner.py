"""Run an ONNX file with onnxruntime on this machine's CPU.

Signedness and kind of the in- and outputs are found from the file. `tensors` runs a copy of the file whose
activations are all outputs: integer ones end a group of DequantizeLinear, op and QuantizeLinear, which fuses
as before.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from toolchain.errors import OptionError, SampleError
from toolchain.formats.onnx.check import element_types, stored_tensors
from toolchain.formats.onnx.dynamic_batch import SYMBOL, has_dynamic_batch
from toolchain.formats.onnx.execution import float_ops
from toolchain.formats.onnx.external import SUFFIX
from toolchain.formats.onnx.reader import parse_onnx
from toolchain.formats.onnx.scope import ELEMENT_TYPES, shift_integers
from toolchain.formats.onnx.session import load_session, run_session, takes_unsigned
from toolchain.graph import Graph
from toolchain.quantization import QuantizedGraph


class OnnxRunner:
    """A loaded file that implements `formats.artifact.Runner` for the graph it was written from."""

    def __init__(
        self,
        content: bytes | Path,
        model: Graph | QuantizedGraph,
        *,
        threads: int = 1,
        int8_kernels: bool = False,
        data: bytes | None = None,
    ) -> None:
        """Load the file, with `data` beside it (of a path, what lies there); `int8_kernels` has x86-64 take the
        kernels that int8 activations meet on arm64.

        Raises UnsupportedError where the file is damaged or onnxruntime does not take it.
        """
        if isinstance(content, Path) and (beside := Path(f"{content}{SUFFIX}")).exists():
            data = _read(beside)
        self._content = _read(content) if isinstance(content, Path) else content
        self._data = data
        self._model = model if isinstance(model, QuantizedGraph) else QuantizedGraph(model, {})
        self._threads = threads
        self._int8_kernels = int8_kernels
        proto = parse_onnx(self._content, data)
        self._dynamic_batch = has_dynamic_batch(proto)
        self._stored = stored_tensors(proto, self._model)
        self._elements = element_types(proto.graph)
        self._unsigned = takes_unsigned(proto)
        self._session = self._load(self._content)

    @property
    def name(self) -> str:
        return "onnxruntime"

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs in the graph's order."""
        names = list(dict.fromkeys(self._model.graph.outputs))
        found = dict(zip(names, run_session(self._session, names, self._feeds(inputs)), strict=True))
        return [self._unshifted(name, found[name]) for name in self._model.graph.outputs]

    def tensors(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Every activation the file names: integers of the specification, or float32 where not quantized."""
        feeds = self._feeds(inputs)
        visible = [name for name in self._model.graph.activations if self._stored[name].name in self._elements]
        wanted = [self._stored[name].name for name in visible if self._stored[name].name not in feeds]
        # asked for no output, onnxruntime gives all
        seen = run_session(self._seeing_session, wanted, feeds) if wanted else []
        found = feeds | dict(zip(wanted, seen, strict=True))
        return {name: self._unshifted(name, found[self._stored[name].name]) for name in visible}

    def executed_ops(self) -> dict[str, int]:
        """How many nodes of each op type are left after onnxruntime's optimizations."""
        return dict(sorted(Counter(node.op_type for node in self.optimized().graph.node).items()))

    def executed_float_ops(self) -> dict[str, int]:
        """Those of `executed_ops` that compute on floats, but for the conversion of float in- and outputs."""
        return float_ops(self.optimized())

    def optimized(self) -> ModelProto:
        """The graph as onnxruntime executes it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "optimized.onnx")
            self._load(self._content, path)
            beside = path.with_name(path.name + SUFFIX)
            return parse_onnx(path.read_bytes(), beside.read_bytes() if beside.exists() else None)

    @cached_property
    def _seeing_session(self) -> Any:
        """A session whose outputs are all activations."""
        proto = ModelProto.FromString(self._content)
        shown = {value.name for value in (*proto.graph.input, *proto.graph.output)}
        for name in self._model.graph.activations:
            tensor = self._stored[name]
            element = self._elements.get(tensor.name)
            if tensor.name not in shown and element is not None:
                shape: tuple[int | str, ...] = self._model.graph.types[name].shape
                shape = (SYMBOL, *shape[1:]) if self._dynamic_batch else shape
                proto.graph.output.append(helper.make_tensor_value_info(tensor.name, ELEMENT_TYPES[element], shape))
        return self._load(proto.SerializeToString())

    def _load(self, content: bytes, optimized_path: Path | None = None) -> Any:
        return load_session(
            content,
            self._threads,
            unsigned=self._unsigned,
            int8_kernels=self._int8_kernels,
            optimized_path=optimized_path,
            data=self._data,
        )

    def _feeds(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        values = self._model.graph.inputs
        if len(inputs) != len(values):
            raise SampleError(f"the model takes {len(values)} inputs, but {len(inputs)} were given")
        if self._dynamic_batch and len({array.shape[:1] for array in inputs}) > 1:
            raise SampleError(f"inputs of shape {[array.shape for array in inputs]} do not hold one batch")
        return {value.name: self._feed(value.name, array) for value, array in zip(values, inputs, strict=True)}

    def _feed(self, name: str, array: np.ndarray) -> np.ndarray:
        tensor, shape = self._stored[name], self._model.graph.types[name].shape
        if self._dynamic_batch:
            shape = (*array.shape[:1], *shape[1:])
        is_integer = tensor.params is not None and tensor.name == name
        wanted = self._model.params[name].dtype if is_integer else self._model.graph.types[name].dtype
        if array.shape != shape or array.dtype != wanted.numpy:
            found = f"{array.dtype}{list(array.shape)}"
            raise SampleError(f"input {name!r} takes {wanted}{list(shape)}, but {found} was given")
        return shift_integers(array, tensor.params.dtype) if is_integer and tensor.params else array

    def _unshifted(self, name: str, array: np.ndarray) -> np.ndarray:
        """The integers of the specification from those of the file; floats as they are."""
        params = self._model.params.get(name)
        if params is None or array.dtype not in (np.uint8, np.uint16):
            return array
        return shift_integers(array, params.dtype)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionError(f"the ONNX file cannot be opened: {error.strerror}", where=str(path)) from error
