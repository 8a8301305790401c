"""A graph, float or quantized, as the bytes of a TFLite file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.errors import UnsupportedError, raise_collected
from toolchain.formats.artifact import InOut, SparseWeights
from toolchain.formats.tflite.dynamic_batch import follow_batch
from toolchain.formats.tflite.emitter import Emitter, Numbers
from toolchain.formats.tflite.flatbuffer import ModelBuilder, Operand
from toolchain.formats.tflite.layout import default_layout
from toolchain.formats.tflite.layout_plan import plan_layouts
from toolchain.formats.tflite.layout_rules import output_layout
from toolchain.formats.tflite.lowerings import TFLITE_LOWERINGS
from toolchain.formats.tflite.lowerings.recurrent import with_operators
from toolchain.formats.tflite.metadata import KEY, RUNTIME_KEY, Mapped
from toolchain.formats.tflite.names import INNER_SUFFIX, INTEGER_SUFFIX, plan_names
from toolchain.formats.tflite.sparse_plan import SparsePlan, plan_sparse
from toolchain.formats.tflite.versions import oldest_runtime
from toolchain.graph import BATCHES, RECURRENT, WEIGHTED, DType, Graph, Op, with_batch
from toolchain.quantization import QuantizedGraph, Reals

_PARAMETRIZED: Final = WEIGHTED | RECURRENT | {Op.BATCH_NORM}
"""Ops whose weights, biases and statistics, up to four inputs behind the first, must be constants."""

_ACTIVATIONS: Final = (DType.INT8, DType.INT16)
_CONSTANTS: Final = (DType.INT4, DType.INT8, DType.INT16)
_BIASES: Final = (DType.INT32, DType.INT64)

NO_HALF_KERNEL: Final = {
    Op.MAX_POOL2D: "XNNPACK has no float16 kernel for max_pool2d, and float16 layers run nowhere else; "
    "float16_weights keeps the activations float32"
}
"""Ops that no interpreter computes in float16. Of other ops the interpreter says so itself, as it loads the file."""


def write_tflite(
    model: Graph | QuantizedGraph,
    *,
    in_out: InOut = InOut.INTEGER,
    name: str = "model",
    dynamic_batch: bool = False,
    sparse: SparseWeights = SparseWeights.NEVER,
) -> bytes:
    """The file's bytes, the same for the same model.

    A `Graph` gives a float file. A `QuantizedGraph` gives one whose tensors are all integers; with
    `InOut.FLOAT` one QUANTIZE an input and one DEQUANTIZE an output stand around them. With `dynamic_batch` the
    in- and outputs may be resized along axis 0, which must be the batch of all. With `sparse`, weights full of zeros
    are stored without them where XNNPACK then computes without them (`sparse_plan`). Raises
    UnsupportedError, listing all it found, where the model holds what TFLite cannot, and BudgetError where
    the file would pass 2 GiB.
    """
    quantized = model if isinstance(model, QuantizedGraph) else QuantizedGraph(model, {})
    raise_collected(UnsupportedError, "TFLite cannot hold this model:", _misfits(quantized))
    converts = isinstance(model, QuantizedGraph) and in_out is InOut.FLOAT
    build = partial(_built, converts=converts, sparse=plan_sparse(quantized, sparse))
    written = with_operators(quantized, any_batch=dynamic_batch)
    on_reals = set(written.float_nodes) - set(quantized.graph.types)  # what is written out of recurrent layers
    if not dynamic_batch:
        builder, inputs, outputs, metadata = build(written, on_reals=on_reals)
        return builder.finish(name, inputs, outputs, metadata)
    first, second = (replace(written, graph=with_batch(written.graph, batch)) for batch in BATCHES)
    builder, inputs, outputs, metadata = build(first, on_reals=on_reals)
    follow_batch(builder, build(second, on_reals=on_reals)[0], quantized.graph.inputs[0].type.shape[0])
    return builder.finish(name, inputs, outputs, metadata)


_Ends: TypeAlias = list[tuple[str, Operand]]


def _built(
    quantized: QuantizedGraph, *, converts: bool, on_reals: Collection[str], sparse: SparsePlan
) -> tuple[ModelBuilder, _Ends, _Ends, dict[str, bytes]]:
    """The model under construction, its in- and outputs and its metadata."""
    graph, is_half = quantized.graph, quantized.reals is Reals.FLOAT16
    plan = plan_layouts(graph)
    builder = ModelBuilder(is_half=is_half)
    weights_only = bool(quantized.params) and not quantized.has_integer_activations
    # float16 is what the builder makes of float32
    written = replace(quantized, reals=Reals.FLOAT32) if is_half else quantized
    numbers = Numbers(quantized.params, written.stored_values, quantized.float_nodes, weights_only, on_reals, sparse)
    emitter = Emitter(graph, numbers, plan, plan_names(graph, plan, quantized.params if converts else ()), builder)
    inputs = [(value.name, _add_input(emitter, value.name, converts)) for value in graph.inputs]
    for node in graph.nodes:
        TFLITE_LOWERINGS[node.op](emitter, node)
        emitter.leave_island()
    outputs = [(output, _add_output(emitter, output, converts)) for output in graph.outputs]
    if is_half:
        inputs, outputs = builder.widened(inputs, outputs)
    metadata = {
        RUNTIME_KEY: oldest_runtime(builder.codes, is_half=is_half).encode().ljust(16, b"\0"),
        KEY: _mapped(emitter).to_bytes(),
    }
    return builder, inputs, outputs, metadata


def _add_input(emitter: Emitter, name: str, converts: bool) -> Operand:
    if not converts or name not in emitter.numbers.params:
        return emitter.declare(name)
    shape = emitter.plan.layouts[name].shape(emitter.graph.types[name].shape)
    source = emitter.builder.add_tensor(name, shape, DType.FLOAT32, None)
    emitter.emit(Builtin.QUANTIZE, [source], emitter.declare(name), schema.QuantizeOptionsT())
    return source


def _add_output(emitter: Emitter, name: str, converts: bool) -> Operand:
    layout, shape = emitter.plan.layouts[name], emitter.graph.types[name].shape
    converts = converts and name in emitter.numbers.params
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


def _misfits(model: QuantizedGraph) -> list[str]:
    graph, is_float = model.graph, not model.has_integer_activations
    if model.reals is Reals.FLOAT16:
        return [f"{n.output}: {NO_HALF_KERNEL[n.op]}" for n in graph.nodes if n.op in NO_HALF_KERNEL]
    found = [f"output {name} is a constant" for name in graph.outputs if graph.is_constant(name)]
    for node in graph.nodes:
        fixed = node.inputs[1:5] if node.op in _PARAMETRIZED else ()
        found += [f"{node.output} reads {n}, which is computed" for n in fixed if not graph.is_constant(n)]
    for name in graph.activations:
        kind, params = graph.types[name], model.params.get(name)
        if kind.dtype is DType.FLOAT16:
            found.append(f"{name} is {kind.dtype}; reals are written as float32")
        elif not is_float and params is None and kind.dtype.is_float and not _touches_island(model, name):
            found.append(f"{name} has no scale, and would be a float tensor in an integer file")
        elif params is not None and (params.dtype not in _ACTIVATIONS or params.axis is not None):
            found.append(f"{name} is {params.dtype}; activations are written as int8 or int16, one scale a tensor")
        elif params is not None and params.dtype is DType.INT16 and np.any(params.zero_point):
            found.append(f"{name} has a zero point; int16 is written without")
    return found + (_constant_misfits(model) if not is_float else [])


def _touches_island(model: QuantizedGraph, name: str) -> bool:
    """Whether a tensor is made by a float node, or read by float nodes only."""
    readers = model.graph.consumers.get(name, ())
    return name in model.float_nodes or (bool(readers) and all(r.output in model.float_nodes for r in readers))


def _constant_misfits(model: QuantizedGraph) -> list[str]:
    found = []
    for node in model.graph.nodes:
        for position, name in enumerate(node.inputs):
            params = model.params.get(name)
            if not model.graph.is_constant(name) or not model.graph.is_real(name) or node.output in model.float_nodes:
                continue
            is_bias = node.op in WEIGHTED and position == 2
            if params is None or params.dtype not in (_BIASES if is_bias else _CONSTANTS):
                found.append(f"{name} is {params.dtype if params else 'float'}, which {node.op} does not take")
            elif node.op in WEIGHTED and np.any(params.zero_point):
                found.append(f"{name} has a zero point; {node.op} takes symmetric weights")
    return found
