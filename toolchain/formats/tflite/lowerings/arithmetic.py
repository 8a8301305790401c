"""Functions of one and two tensors as TFLite operators.

What has no kernel is written with what has:

    -x           of int8    0 - x
    clamp        of int8    MAXIMUM and MINIMUM on integers of the result's parameters, behind a QUANTIZE
    |x|, sign    of whole numbers    max(x, -x),  min(max(x, -1), 1)
    a / b, a^b   of int64   as int32, the only whole numbers these kernels know
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import TENSOR_TYPES, Operand
from toolchain.formats.tflite.lowerings.elementwise import binary, unary
from toolchain.graph import DType, Node, Op
from toolchain.quantization import quantize

_SMALLEST = 1e-30
"""What is taken for 0 by a logarithm whose result is quantized: an infinity has no integer."""


def pair(code: int, make_options: Callable[[], Any]) -> Lowering:
    """A lowering to the operator `code` of two inputs, without a fused activation."""
    return partial(_lower_pair, code, make_options)


def cast(emitter: Emitter, source: Operand, dtype: DType, target: Operand | None = None) -> Operand:
    """`source` as `dtype`."""
    if target is None:
        target = emitter.builder.add_tensor(f"{source.name}/{dtype}", source.shape, dtype, None)
    options = schema.CastOptionsT(inDataType=TENSOR_TYPES[source.dtype], outDataType=TENSOR_TYPES[dtype])
    return emitter.emit(Builtin.CAST, [source], target, options)


def scalar(emitter: Emitter, name: str, value: float, like: Operand) -> Operand:
    """A constant of the type, the parameters and the rank of `like`, one value."""
    if like.params is not None:
        values = quantize(np.asarray(value, np.float64), like.params)
    else:
        values = np.asarray(value, like.dtype.numpy)
    return emitter.add_constant(name, values.reshape([1] * len(like.shape)), like.params)


def _lower_pair(code: int, make_options: Callable[[], Any], emitter: Emitter, node: Node) -> None:
    emitter.emit(code, emitter.inputs(node), emitter.result(node), make_options())


def _narrow(code: int, make_options: Callable[[], Any], emitter: Emitter, node: Node) -> None:
    """An operator that has int32 for its only integers."""
    sources, result = emitter.inputs(node), emitter.result(node)
    if result.dtype.is_float or result.dtype is DType.INT32:
        emitter.emit(code, sources, result, make_options())
        return
    narrowed = [cast(emitter, source, DType.INT32) for source in sources]
    computed = emitter.builder.add_tensor(f"{result.name}/int32", result.shape, DType.INT32, None)
    emitter.emit(code, narrowed, computed, make_options())
    cast(emitter, computed, result.dtype, result)


def _lower_neg(emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    if source.params is None:
        emitter.emit(Builtin.NEG, [source], emitter.result(node), schema.NegOptionsT())
        return
    zero = scalar(emitter, f"{node.output}/zero", 0.0, source)
    emitter.emit(Builtin.SUB, [zero, source], emitter.result(node), schema.SubOptionsT())


def _lower_log(emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    if node.output in emitter.numbers.float_nodes:
        least = scalar(emitter, f"{node.output}/least", _SMALLEST, source)
        positive = emitter.temporary(f"{node.output}/positive", source.shape, source)
        source = emitter.emit(Builtin.MAXIMUM, [source, least], positive, schema.MaximumMinimumOptionsT())
    emitter.emit(Builtin.LOG, [source], emitter.result(node))


def _lower_requantize(emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    result = emitter.result(node)
    if source.params is None and result.params is None:
        emitter.reshape_into(source, result)
    else:
        emitter.emit(Builtin.QUANTIZE, [source], result, schema.QuantizeOptionsT())


def _lower_clamp(emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    _clamp_into(emitter, node, source, node["low"], node["high"])


def _lower_abs(emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    if source.params is not None or source.dtype.is_float:
        emitter.emit(Builtin.ABS, [source], emitter.result(node), schema.AbsOptionsT())
        return
    negated = emitter.temporary(f"{node.output}/negated", source.shape, source)
    emitter.emit(Builtin.NEG, [source], negated, schema.NegOptionsT())
    emitter.emit(Builtin.MAXIMUM, [source, negated], emitter.result(node), schema.MaximumMinimumOptionsT())


def _lower_sign(emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    if source.dtype.is_float:
        emitter.emit(Builtin.SIGN, [source], emitter.result(node), schema.SignOptionsT())
    else:
        _clamp_into(emitter, node, source, -1.0, 1.0)


def _clamp_into(emitter: Emitter, node: Node, source: Operand, low: float, high: float) -> None:
    result = emitter.result(node)
    # integers end at the bounds of their parameters
    lowest, highest = (-inf, inf) if result.params is None else result.params.bounds
    needed = [
        (code, key, bound)
        for code, key, bound, is_needed in (
            (Builtin.MAXIMUM, "low", low, low > lowest),
            (Builtin.MINIMUM, "high", high, high < highest),
        )
        if is_needed
    ]
    if (source.params is not None and source.params != result.params) or not needed:
        target = emitter.temporary(f"{node.output}/unclamped", result.shape, result) if needed else result
        if source.params is None:
            emitter.reshape_into(source, target)
        else:
            emitter.emit(Builtin.QUANTIZE, [source], target, schema.QuantizeOptionsT())
        source = target
    for step, (code, key, value) in enumerate(needed):
        is_last = step == len(needed) - 1
        target = result if is_last else emitter.temporary(f"{node.output}/{key}", result.shape, result)
        bound = scalar(emitter, f"{node.output}/{key}_bound", value, result)
        source = emitter.emit(code, [source, bound], target, schema.MaximumMinimumOptionsT())


ARITHMETIC: dict[Op, Lowering] = {
    Op.ADD: binary(Builtin.ADD, schema.AddOptionsT),
    Op.SUB: binary(Builtin.SUB, schema.SubOptionsT),
    Op.MUL: binary(Builtin.MUL, schema.MulOptionsT),
    Op.DIV: partial(_narrow, Builtin.DIV, schema.DivOptionsT),
    Op.POW: partial(_narrow, Builtin.POW, schema.PowOptionsT),
    Op.MINIMUM: pair(Builtin.MINIMUM, schema.MaximumMinimumOptionsT),
    Op.MAXIMUM: pair(Builtin.MAXIMUM, schema.MaximumMinimumOptionsT),
    Op.EXP: unary(Builtin.EXP, lambda node: schema.ExpOptionsT()),
    Op.LOG: _lower_log,
    Op.SQRT: unary(Builtin.SQRT),
    Op.RSQRT: unary(Builtin.RSQRT),
    Op.ABS: _lower_abs,
    Op.NEG: _lower_neg,
    Op.SIN: unary(Builtin.SIN),
    Op.COS: unary(Builtin.COS, lambda node: schema.CosOptionsT()),
    Op.FLOOR: unary(Builtin.FLOOR),
    Op.CEIL: unary(Builtin.CEIL),
    Op.ROUND: unary(Builtin.ROUND),
    Op.SIGN: _lower_sign,
    Op.REQUANTIZE: _lower_requantize,
    Op.CLAMP: _lower_clamp,
}
