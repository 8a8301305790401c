"""Comparisons, functions of booleans, selection and casts as TFLite operators.

Comparisons have no kernels for small integers, nor an order of booleans: these are compared as int32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.lowerings.arithmetic import cast, pair
from toolchain.formats.tflite.lowerings.elementwise import unary
from toolchain.graph import DType, Node, Op

_COMPARED_AS_INT32 = (DType.UINT8, DType.INT8, DType.INT16)


def _comparison(code: int, make_options: Callable[[], Any]) -> Lowering:
    return partial(_lower_comparison, code, make_options)


def _lower_comparison(code: int, make_options: Callable[[], Any], emitter: Emitter, node: Node) -> None:
    sources = emitter.inputs(node)
    if sources[0].dtype in _COMPARED_AS_INT32:
        sources = [cast(emitter, source, DType.INT32) for source in sources]
    emitter.emit(code, sources, emitter.result(node), make_options())


def _lower_cast(emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    result = emitter.result(node)
    cast(emitter, source, result.dtype, result)


def _lower_where(emitter: Emitter, node: Node) -> None:
    emitter.emit(Builtin.SELECT_V2, emitter.inputs(node), emitter.result(node), schema.SelectV2OptionsT())


LOGIC: dict[Op, Lowering] = {
    Op.EQUAL: _comparison(Builtin.EQUAL, schema.EqualOptionsT),
    Op.NOT_EQUAL: _comparison(Builtin.NOT_EQUAL, schema.NotEqualOptionsT),
    Op.LESS: _comparison(Builtin.LESS, schema.LessOptionsT),
    Op.LESS_EQUAL: _comparison(Builtin.LESS_EQUAL, schema.LessEqualOptionsT),
    Op.GREATER: _comparison(Builtin.GREATER, schema.GreaterOptionsT),
    Op.GREATER_EQUAL: _comparison(Builtin.GREATER_EQUAL, schema.GreaterEqualOptionsT),
    Op.LOGICAL_AND: pair(Builtin.LOGICAL_AND, schema.LogicalAndOptionsT),
    Op.LOGICAL_OR: pair(Builtin.LOGICAL_OR, schema.LogicalOrOptionsT),
    Op.LOGICAL_NOT: unary(Builtin.LOGICAL_NOT, lambda node: schema.LogicalNotOptionsT()),
    Op.WHERE: _lower_where,
    Op.CAST: _lower_cast,
}
