"""Products of matrices as TFLite operators."""

from __future__ import annotations

from math import prod

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.graph import Node, Op, unsupported

_MATMUL_RANK = 5
"""Axes of the kernels of BATCH_MATMUL."""


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


def _flat_shape(operand: Operand) -> tuple[int, ...]:
    return (prod(operand.shape[:-2]), *operand.shape[-2:])


def _of_one_batch_axis(emitter: Emitter, operand: Operand) -> Operand:
    flat = emitter.temporary(f"{operand.name}/flat", _flat_shape(operand), operand)
    return emitter.reshape_into(operand, flat)


MATMUL: dict[Op, Lowering] = {
    Op.MATMUL: _matmul,
}
