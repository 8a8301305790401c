"""Reductions along axes, sums so far, the largest few, and products of matrices, as TFLite operators."""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import TENSOR_TYPES, Operand
from toolchain.formats.tflite.layout import Layout
from toolchain.graph import DType, Node, Op, unsupported


def _reduce(code: int, emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    axes = sorted(_layout(emitter, node).axis(axis) for axis in node["axes"])
    inputs = [source, emitter.vector(f"{node.output}/axes", axes)]
    emitter.emit(code, inputs, emitter.result(node), schema.ReducerOptionsT(keepDims=node["keepdim"]))


def _argument(code: int, emitter: Emitter, node: Node) -> None:
    """ARG_MAX or ARG_MIN, which drop the axis."""
    (source,) = emitter.inputs(node)
    axis = _layout(emitter, node).axis(node["axis"])
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
    axis = np.asarray(_layout(emitter, node).axis(node["axis"]), np.int32)
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


def _matmul(emitter: Emitter, node: Node) -> None:
    """BATCH_MATMUL; an operand whose last two axes lie the other way round is read so."""
    operands: list[Operand] = emitter.inputs(node)
    result = emitter.result(node)
    swapped = [layout is not None and layout.order[-1] != layout.rank - 1 for layout in emitter.placement(node).wanted]
    options = schema.BatchMatMulOptionsT(adjX=swapped[0], adjY=swapped[1])
    if len(result.shape) <= _MATMUL_RANK:
        emitter.emit(Builtin.BATCH_MATMUL, operands, result, options)
        return
    if len({operand.shape[:-2] for operand in (*operands, result)}) > 1:
        hint = "expand and reshape the operands to at most three axes for the batch"
        raise unsupported(node, f"the operator takes {_MATMUL_RANK} axes, and these are broadcast", hint)
    flat = [_of_one_batch_axis(emitter, operand) for operand in operands]
    target = emitter.temporary(f"{node.output}/products", _flat_shape(result), result)
    emitter.reshape_into(emitter.emit(Builtin.BATCH_MATMUL, flat, target, options), result)


_MATMUL_RANK = 5


def _flat_shape(operand: Operand) -> tuple[int, ...]:
    return (prod(operand.shape[:-2]), *operand.shape[-2:])


def _of_one_batch_axis(emitter: Emitter, operand: Operand) -> Operand:
    flat = emitter.temporary(f"{operand.name}/flat", _flat_shape(operand), operand)
    return emitter.reshape_into(operand, flat)


def _layout(emitter: Emitter, node: Node) -> Layout:
    layout = emitter.placement(node).wanted[0]
    assert layout is not None
    return layout


REDUCTIONS: dict[Op, Lowering] = {
    Op.SUM: partial(_reduce, Builtin.SUM),
    Op.REDUCE_MAX: partial(_reduce, Builtin.REDUCE_MAX),
    Op.REDUCE_MIN: partial(_reduce, Builtin.REDUCE_MIN),
    Op.ARGMAX: partial(_argument, Builtin.ARG_MAX),
    Op.ARGMIN: partial(_argument, Builtin.ARG_MIN),
    Op.CUMSUM: _cumsum,
    Op.TOPK_VALUES: partial(_topk, 0),
    Op.TOPK_INDICES: partial(_topk, 1),
    Op.MATMUL: _matmul,
}
