"""Golden inputs and reference outputs as a file has them: its own layout and integers, one sample after the other.

A bundle knows nothing of graphs: what a device sets and gets are plain arrays, stacked on a new axis 0, (N, *shape).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.errors import OptionError
from toolchain.formats.artifact import ArtifactFacts, OperatorFacts, TensorFacts
from toolchain.formats.onnx import read_onnx
from toolchain.formats.onnx.reader import parse_onnx
from toolchain.formats.onnx.scope import shift_integers
from toolchain.formats.onnx.session import takes_unsigned
from toolchain.formats.tflite import read_tflite
from toolchain.formats.tflite.layout import Layout, default_layout, identity
from toolchain.formats.tflite.parse import parse
from toolchain.formats.tflite.reader import activation_layouts
from toolchain.graph import DType
from toolchain.quantization import QuantizedGraph, quantize_inputs

FLOAT_STEPS = 255
"""Steps that the range of a float output is counted in where it has none of its own."""


@dataclass(frozen=True)
class Samples:
    """Judging samples, each with a batch of 1, and what the float model gives of them, in torch's layout."""

    inputs: tuple[tuple[np.ndarray, ...], ...]
    references: tuple[tuple[np.ndarray, ...], ...]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Golden:
    """One file's part of the manifest, and its arrays: (N, *shape as the file has it), references float32."""

    artifact: dict[str, Any]
    inputs: tuple[np.ndarray, ...]
    references: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class _File:
    facts: ArtifactFacts
    layouts: Mapping[str, Layout]
    """Of in- and outputs, by the file's names."""
    indices: Mapping[str, int]
    unsigned: bool
    oldest_runtime: str | None


def make_golden(
    name: str, content: bytes, model: QuantizedGraph, samples: Samples, data: bytes | None = None
) -> Golden:
    """Samples as the file `name`, written from `model`, takes them; `data` lies beside it. A float model has no params.

    Raises OptionError where the file is neither .onnx nor .tflite."""
    file = _read(name, content, data)
    facts = file.facts
    given = [_stored_inputs(file, model, inputs) for inputs in samples.inputs]
    names = model.graph.outputs
    if len(facts.outputs) != len(names):  # an output that the graph names twice is one of the file
        names = tuple(dict.fromkeys(names))
    values = [dict(zip(model.graph.outputs, row, strict=True)) for row in samples.references]
    references = [
        [file.layouts[port].to_physical(np.asarray(row[name])) for port, name in zip(facts.outputs, names, strict=True)]
        for row in values
    ]
    described = _described(name, file)
    artifact = {
        **described,
        "oldest_runtime": file.oldest_runtime,
        "integer": _computes_integers(model) and _has_integer_ports(facts),
        "outputs": [
            port | _unit(model, graph_name, facts.tensors[port["name"]])
            for port, graph_name in zip(described["outputs"], names, strict=True)
        ],
        "tensors": _tensors(file, model),
    }
    stacked = tuple(np.stack(column) for column in zip(*given, strict=True))
    return Golden(artifact, stacked, tuple(np.stack(column) for column in zip(*references, strict=True)))


def describe_file(name: str, content: bytes, data: bytes | None = None) -> dict[str, Any]:
    """What `run_bundle.load` must know of a file to run it, whoever wrote it. Raises OptionError where it is neither
    .onnx nor .tflite."""
    return _described(name, _read(name, content, data))


def _described(name: str, file: _File) -> dict[str, Any]:
    facts = file.facts
    ports = {kind: [_port(file, port) for port in getattr(facts, kind)] for kind in ("inputs", "outputs")}
    return {"file": name, "format": facts.format, "unsigned": file.unsigned, **ports}


def _read(name: str, content: bytes, data: bytes | None) -> _File:
    if name.endswith(".onnx"):
        facts = read_onnx(content, data)
        ports = {port: identity(len(facts.tensors[port].shape)) for port in (*facts.inputs, *facts.outputs)}
        return _File(facts, ports, {}, takes_unsigned(parse_onnx(content, data)), None)
    if not name.endswith(".tflite"):
        raise OptionError(f"{name} is neither .onnx nor .tflite")
    facts, model = read_tflite(content), parse(content)
    known = activation_layouts(model)
    indices = {tensor: index for index, tensor in enumerate(facts.tensors)}
    layouts = {
        port: known.get(signed) or known.get(port) or default_layout(len(facts.tensors[port].shape))
        for port, (signed, _) in zip((*facts.inputs, *facts.outputs), (*model.inputs, *model.outputs), strict=True)
    }
    return _File(facts, layouts, indices, unsigned=False, oldest_runtime=model.oldest_runtime)


def _stored_inputs(file: _File, model: QuantizedGraph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    ports = [file.facts.tensors[port] for port in file.facts.inputs]
    found = []
    for port, real, integers in zip(ports, inputs, quantize_inputs(model, inputs), strict=True):
        stored = real if port.dtype.is_float else shift_integers(integers, port.dtype)
        found.append(file.layouts[port.name].to_physical(stored.astype(port.dtype.numpy, copy=False)))
    return found


def _port(file: _File, name: str) -> dict[str, Any]:
    tensor = file.facts.tensors[name]
    place = {"index": file.indices[name]} if file.indices else {}
    return {"name": name, **place, "dtype": tensor.dtype.value, **_affine(tensor)}


def _affine(tensor: TensorFacts) -> dict[str, Any]:
    if len(tensor.scale) != 1 or tensor.dtype.is_float:
        return {"scale": None, "zero_point": 0}
    return {"scale": float(tensor.scale[0]), "zero_point": int(tensor.zero_point[0])}


def _unit(model: QuantizedGraph, name: str, tensor: TensorFacts) -> dict[str, Any]:
    """What a difference at an output is counted in: `step` its own, or null for a share of its range; an output that is
    no real number, an index or a boolean, is right or wrong."""
    if not model.graph.is_real(name):
        return {"step": None, "real": False}
    step = 1.0 if not tensor.dtype.is_float else model.params[name].step if name in model.params else None
    return {"step": step, "real": True}


def _computes_integers(model: QuantizedGraph) -> bool:
    """Whether kernels give the same bits on any CPU. Those of XNNPACK for int4 weights do not: they are off by a step
    on Arm from what they are on x86-64."""
    is_wide = all(params.dtype is not DType.INT4 for params in model.params.values())
    return model.has_integer_activations and not model.float_nodes and is_wide


def _has_integer_ports(facts: ArtifactFacts) -> bool:
    return not any(facts.tensors[port].dtype.is_float for port in (*facts.inputs, *facts.outputs))


def _tensors(file: _File, model: QuantizedGraph) -> list[dict[str, Any]]:
    """What is computed on the way, in the order it is, and the op that computes it. In an ONNX file of integers those
    alone: to show what lies between a DequantizeLinear and a QuantizeLinear would keep onnxruntime from fusing."""
    facts, found = file.facts, []
    only_integers = facts.format == "onnx" and model.has_integer_activations
    makers = {name: operator for operator in facts.operators for name in operator.outputs}
    for name, operator in makers.items():
        tensor = facts.tensors.get(name)
        if tensor is None or tensor.is_constant or tensor.dtype is DType.BOOL:
            continue
        if not (only_integers and tensor.dtype.is_float):
            found.append({**_port(file, name), "op": _computing(operator, makers).op})
    return found


def _computing(operator: OperatorFacts, makers: Mapping[str, OperatorFacts]) -> OperatorFacts:
    """The op whose result only passes through what rounds and clips it."""
    while operator.op in ("QuantizeLinear", "Clip") and operator.inputs[0] in makers:
        operator = makers[operator.inputs[0]]
    return operator
