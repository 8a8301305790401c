"""What is compared, read: a file, or a saved stage as a folder or as the value it holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from onnx import ModelProto, TensorProto, shape_inference

from toolchain.errors import OptionError, ToolchainError
from toolchain.formats.artifact import ArtifactFacts, Format, OperatorFacts, TensorFacts
from toolchain.formats.onnx import read_onnx
from toolchain.formats.onnx.external import SUFFIX as DATA_SUFFIX
from toolchain.formats.onnx.reader import affine_uses, element_dtype
from toolchain.formats.tflite import read_tflite
from toolchain.formats.tflite.flatbuffer import IDENTIFIER
from toolchain.graph import Graph
from toolchain.quantization import QuantizedGraph
from toolchain.stages.states import Model, QuantizedModel, load

Given: TypeAlias = str | Path | bytes | Model
"""A path of a file or of a saved stage's folder, a file's bytes, or a saved stage."""

_HINT = "give an .onnx, a .tflite, or a folder that `toolchain stage` wrote"
_LARGE_BYTES = 1024
"""Constants above it are no shapes or axes: what follows from shapes can be worked out without their values."""


@dataclass(frozen=True)
class FileSource:
    """A file's bytes, and those of the file beside it that an ONNX model may have."""

    format: Format
    content: bytes
    data: bytes | None = None


@dataclass(frozen=True)
class GraphSource:
    """The graph of a saved stage; without params it is float."""

    model: QuantizedGraph


@dataclass(frozen=True)
class Artifact:
    """One side: its name, what it holds, and what runs it. `facts.format` is onnx, tflite, or a saved stage's state."""

    name: str
    facts: ArtifactFacts
    source: FileSource | GraphSource

    @property
    def constant_bytes(self) -> int:
        """Bytes that the constants take as they are stored."""
        return sum(tensor.bytes for tensor in self.facts.tensors.values())


def read_artifact(given: Given) -> Artifact:
    """Raises OptionError or UnsupportedError for what is missing, damaged or no artifact, naming the file."""
    if isinstance(given, Model):
        return _from_state(given.state, given, 0)
    if isinstance(given, bytes):
        return _from_content("bytes", given, None)
    path = Path(given)
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.glob("*") if file.name in ("model.json", "arrays.safetensors"))
        return _from_state(str(given), load(path), size)
    if path.suffix in (".pt2", ".toml", ".npz"):
        raise OptionError(f"{path} is no artifact", hint=_HINT)
    try:
        beside = Path(f"{path}{DATA_SUFFIX}")
        content, data = path.read_bytes(), beside.read_bytes() if beside.is_file() else None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}", hint=_HINT) from error
    try:
        return _from_content(str(given), content, data)
    except ToolchainError as error:
        raise type(error)(error.what, where=str(path), hint=error.hint) from error


def _from_content(name: str, content: bytes, data: bytes | None) -> Artifact:
    if content[4:8] == IDENTIFIER or name.endswith(".tflite"):
        return Artifact(name, read_tflite(content), FileSource(Format.TFLITE, content))
    facts = read_onnx(content, data)
    size = facts.bytes + len(data or b"")
    return Artifact(name, replace(_with_shapes(facts, content), bytes=size), FileSource(Format.ONNX, content, data))


def _with_shapes(facts: ArtifactFacts, content: bytes) -> ArtifactFacts:
    """With the tensors whose shapes the file leaves to be worked out."""
    if all(name in facts.tensors for operator in facts.operators for name in operator.outputs):
        return facts
    model = ModelProto.FromString(content)
    scales = {name: found[0] for name, found in affine_uses(model).items()}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > _LARGE_BYTES:
            tensor.ClearField("raw_data")
        elif tensor.data_location == TensorProto.EXTERNAL:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    try:
        inferred = shape_inference.infer_shapes(model)
    except Exception:  # what onnx cannot work out stays unknown; its errors have no root of their own
        return facts
    found = {}
    for value in inferred.graph.value_info:
        kind = value.type.tensor_type
        dtype = element_dtype(kind.elem_type)
        if dtype is not None and kind.HasField("shape"):
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
            scale, zero_point, axis, _ = scales.get(value.name, ((), (), None, None))
            found[value.name] = TensorFacts(value.name, dtype, shape, False, scale, zero_point, axis)
    return replace(facts, tensors=found | dict(facts.tensors))


def _from_state(name: str, model: Model, size: int) -> Artifact:
    quantized = model.quantized if isinstance(model, QuantizedModel) else QuantizedGraph(model.graph, {})
    tensors = {tensor: _tensor_facts(quantized, tensor) for tensor in quantized.graph.types}
    graph = quantized.graph
    facts = ArtifactFacts(
        model.state,
        _op_counts(graph),
        tensors,
        graph.input_names,
        graph.outputs,
        size or sum(tensor.bytes for tensor in tensors.values()),
        tuple(OperatorFacts(node.op.value, node.inputs, node.outputs) for node in graph.nodes),
    )
    return Artifact(name, facts, GraphSource(quantized))


def _op_counts(graph: Graph) -> dict[str, int]:
    return dict(sorted(Counter(node.op.value for node in graph.nodes).items()))


def _tensor_facts(model: QuantizedGraph, name: str) -> TensorFacts:
    kind, params = model.graph.types[name], model.params.get(name)
    is_constant = model.graph.is_constant(name)
    dtype = model.stored_dtype(name) if is_constant else params.dtype if params else kind.dtype
    scale = () if params is None else tuple(params.scale.ravel().tolist())
    zero_point = () if params is None else tuple(params.zero_point.ravel().tolist())
    axis, block = (None, None) if params is None else (params.axis, params.block)
    size = dtype.stored_bytes(kind.elements) if is_constant else 0
    return TensorFacts(name, dtype, kind.shape, is_constant, scale, zero_point, axis, size, block=block)
