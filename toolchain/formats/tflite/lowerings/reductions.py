"""Reductions along axes, sums so far and the largest few, as TFLite operators."""

from __future__ import annotations

from functools import partial

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import TENSOR_TYPES
from toolchain.formats.tflite.lowerings.moves import read_layout, reduce_axes
from toolchain.graph import DType, Node, Op


def _reduce(code: int, emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    axes = sorted(read_layout(emitter, node).axis(axis) for axis in node["axes"])
    reduce_axes(emitter, code, source, axes, emitter.result(node), keep_axes=node["keepdim"])


def _argument(code: int, emitter: Emitter, node: Node) -> None:
    """ARG_MAX or ARG_MIN, which drop the axis."""
    (source,) = emitter.inputs(node)
    axis = read_layout(emitter, node).axis(node["axis"])
    inputs = [source, emitter.add_constant(f"{node.output}/axis", np.asarray(axis, np.int32))]
    result = emitter.result(node)
    target = result
    if node["keepdim"]:
        target = emitter.temporary(f"{node.output}/dropped", (*source.shape[:axis], *source.shape[axis + 1 :]), result)
    kind = schema.ArgMaxOptionsT if code == Builtin.ARG_MAX else schema.ArgMinOptionsT
    emitter.emit(code, inputs, target, kind(outputType=TENSOR_TYPES[DType.INT64]))
    if target is not result:
        emitter.reshape_into(target, result)


def _cumsum(emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    axis = np.asarray(read_layout(emitter, node).axis(node["axis"]), np.int32)
    inputs = [source, emitter.add_constant(f"{node.output}/axis", axis)]
    emitter.emit(Builtin.CUMSUM, inputs, emitter.result(node), schema.CumsumOptionsT())


def _topk(output: int, emitter: Emitter, node: Node) -> None:
    """TOPK_V2 over the last axis; its int32 indices are cast."""
    (source,) = emitter.inputs(node)
    result = emitter.result(node)
    count = emitter.add_constant(f"{node.output}/count", np.asarray(node["count"], np.int32))
    values = result if output == 0 else emitter.temporary(f"{node.output}/values", result.shape, source)
    indices = emitter.builder.add_tensor(f"{node.output}/indices", result.shape, DType.INT32, None)
    emitter.emit_several(Builtin.TOPK_V2, [source, count], [values, indices], schema.TopKV2OptionsT())
    if output == 1:
        types = {"inDataType": TENSOR_TYPES[DType.INT32], "outDataType": TENSOR_TYPES[DType.INT64]}
        emitter.emit(Builtin.CAST, [indices], result, schema.CastOptionsT(**types))


REDUCTIONS: dict[Op, Lowering] = {
    Op.MEAN: partial(_reduce, Builtin.MEAN),
    Op.SUM: partial(_reduce, Builtin.SUM),
    Op.REDUCE_MAX: partial(_reduce, Builtin.REDUCE_MAX),
    Op.REDUCE_MIN: partial(_reduce, Builtin.REDUCE_MIN),
    Op.ARGMAX: partial(_argument, Builtin.ARG_MAX),
    Op.ARGMIN: partial(_argument, Builtin.ARG_MIN),
    Op.CUMSUM: _cumsum,
    Op.TOPK_VALUES: partial(_topk, 0),
    Op.TOPK_INDICES: partial(_topk, 1),
}
