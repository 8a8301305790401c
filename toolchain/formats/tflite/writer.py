"""A graph, float or quantized, as the bytes of a TFLite file."""

from __future__ import annotations

from typing import Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.errors import UnsupportedError, raise_collected
from toolchain.formats.artifact import InOut
from toolchain.formats.tflite.emitter import Emitter, Numbers
from toolchain.formats.tflite.flatbuffer import ModelBuilder, Operand
from toolchain.formats.tflite.layout import default_layout
from toolchain.formats.tflite.layout_rules import output_layout, plan_layouts
from toolchain.formats.tflite.lowering import TFLITE_LOWERINGS
from toolchain.formats.tflite.metadata import KEY, RUNTIME_KEY, Mapped
from toolchain.formats.tflite.names import INNER_SUFFIX, INTEGER_SUFFIX, plan_names
from toolchain.formats.tflite.versions import oldest_runtime
from toolchain.graph import WEIGHTED, DType, Graph, Op
from toolchain.quantization import QuantizedGraph

_PARAMETRIZED: Final = WEIGHTED | {Op.BATCH_NORM}
"""Ops whose inputs but the first must be constants."""


def write_tflite(model: Graph | QuantizedGraph, *, in_out: InOut = InOut.INTEGER, name: str = "model") -> bytes:
    """The file's bytes, the same for the same model.

    A `Graph` gives a float file. A `QuantizedGraph` gives one whose tensors are all integers; with
    `InOut.FLOAT` one QUANTIZE an input and one DEQUANTIZE an output stand around them. Raises
    UnsupportedError, listing all it found, where the model holds what TFLite cannot, and BudgetError where
    the file would pass 2 GiB.
    """
    quantized = model if isinstance(model, QuantizedGraph) else QuantizedGraph(model, {})
    graph = quantized.graph
    raise_collected(UnsupportedError, "TFLite cannot hold this model:", _misfits(quantized, isinstance(model, Graph)))
    plan = plan_layouts(graph)
    converts = isinstance(model, QuantizedGraph) and in_out is InOut.FLOAT
    builder = ModelBuilder()
    numbers = Numbers(quantized.params, quantized.integers)
    emitter = Emitter(graph, numbers, plan, plan_names(graph, plan, converts), builder)
    inputs = [(value.name, _add_input(emitter, value.name, converts)) for value in graph.inputs]
    for node in graph.nodes:
        TFLITE_LOWERINGS[node.op](emitter, node)
    outputs = [(output, _add_output(emitter, output, converts)) for output in graph.outputs]
    metadata = {
        RUNTIME_KEY: oldest_runtime(builder.codes).encode().ljust(16, b"\0"),
        KEY: _mapped(emitter).to_bytes(),
    }
    return builder.finish(name, inputs, outputs, metadata)


def _add_input(emitter: Emitter, name: str, converts: bool) -> Operand:
    if not converts:
        return emitter.declare(name)
    shape = emitter.plan.layouts[name].shape(emitter.graph.types[name].shape)
    source = emitter.builder.add_tensor(name, shape, DType.FLOAT32, None)
    emitter.emit(Builtin.QUANTIZE, [source], emitter.declare(name), schema.QuantizeOptionsT())
    return source


def _add_output(emitter: Emitter, name: str, converts: bool) -> Operand:
    layout, shape = emitter.plan.layouts[name], emitter.graph.types[name].shape
    leaving = name + INTEGER_SUFFIX if converts else name
    operand = emitter.moved(emitter.operand(name), layout, output_layout(layout), shape, leaving)
    emitter.bind(name, operand)
    if not converts:
        return operand
    target = emitter.builder.add_tensor(name, operand.shape, DType.FLOAT32, None)
    return emitter.emit(Builtin.DEQUANTIZE, [operand], target, schema.DequantizeOptionsT())


def _mapped(emitter: Emitter) -> Mapped:
    layouts = dict(emitter.plan.layouts)
    for name in emitter.graph.outputs:
        layouts[name + INNER_SUFFIX] = layouts[name]
        layouts[name] = output_layout(layouts[name])
    unusual = {name: layout for name, layout in layouts.items() if layout != default_layout(layout.rank)}
    return Mapped(unusual, emitter.aliases)


def _misfits(model: QuantizedGraph, is_float: bool) -> list[str]:
    graph = model.graph
    found = [f"output {name} is a constant" for name in graph.outputs if graph.is_constant(name)]
    for node in graph.nodes:
        fixed = node.inputs[1:] if node.op in _PARAMETRIZED else ()
        found += [f"{node.output} reads {n}, which is computed" for n in fixed if not graph.is_constant(n)]
    for name in graph.activations:
        kind, params = graph.types[name], model.params.get(name)
        if is_float and kind.dtype is not DType.FLOAT32:
            found.append(f"{name} is {kind.dtype}; only float32 is written")
        elif not is_float and params is None:
            found.append(f"{name} has no scale, and would be a float tensor in an integer file")
        elif params is not None and (params.dtype is not DType.INT8 or params.axis is not None):
            found.append(f"{name} is {params.dtype}; activations are written as int8, one scale a tensor")
    return found + (_constant_misfits(model) if not is_float else [])


def _constant_misfits(model: QuantizedGraph) -> list[str]:
    found = []
    for node in model.graph.nodes:
        for position, name in enumerate(node.inputs):
            params = model.params.get(name)
            if not model.graph.is_constant(name):
                continue
            is_bias = node.op in WEIGHTED and position == 2
            if params is None or params.dtype is not (DType.INT32 if is_bias else DType.INT8):
                found.append(f"{name} is {params.dtype if params else 'float'}; {node.op} takes int8 (a bias int32)")
            elif node.op in WEIGHTED and np.any(params.zero_point):
                found.append(f"{name} has a zero point; {node.op} takes symmetric weights")
    return found
