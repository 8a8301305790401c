"""Functions of one and two tensors. `left - right` is `left + (-right)`, where `-(q - z) = ~q - ~z` on the bits of a
byte: onnxruntime has an integer kernel for the sum, none for the difference. In QDQ form it is a difference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolchain.formats.onnx.lowerings.rule import LoweringRule, plain
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import DType, Node, Op
from toolchain.quantization import AffineParams


def _add(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """QNN leaves out a sum with zeros, and with it the change of scale: that is written instead."""
    others = [at for at, name in enumerate(node.inputs) if not _is_zero(scope, name)]
    if scope.qdq_only and result.params is not None and len(others) == 1:
        (at,) = others
        if scope.graph.types[node.inputs[at]].shape == scope.graph.types[node.output].shape:
            scope.quantize(scope.real(inputs[at]), result)
            return
    scope.apply("Add", inputs, result, name=node.name)


def _is_zero(scope: Scope, name: str) -> bool:
    return scope.graph.is_constant(name) and not scope.graph.constants[name].any()


def _sub(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    left, right = inputs
    # ONNX subtracts bytes from opset 14 on
    if scope.qdq_only or scope.opset < 14 or left.params is None or right.params is None or result.params is None:
        scope.apply("Sub", inputs, result, name=node.name)
        return
    ones = -1 if right.params.dtype is DType.INT8 else 255  # ~q = ones - q
    minuend = scope.store(f"{node.output}/ones", np.asarray(ones, right.params.dtype.numpy))
    negated = scope.auxiliary(node.output, "negated", _negated_params(right.params, ones))
    scope.emit("Sub", [minuend, right.name], negated.name)
    scope.apply("Add", [left, negated], result, name=node.name)


def _negated_params(params: AffineParams, ones: int) -> AffineParams:
    low, high = ones - params.q_max, ones - params.q_min
    return replace(params, zero_point=ones - params.zero_point, q_min=low, q_max=high)


def _requantize(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    (source,) = inputs
    if result.params is None:
        scope.emit("Identity", [scope.real(source)], result.name, name=node.name)
    else:
        scope.quantize(scope.real(source), result)


def _rsqrt(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    root = scope.auxiliary(node.output, "root")
    scope.apply("Sqrt", inputs, root)
    scope.apply("Reciprocal", [root], result, name=node.name)


ARITHMETIC: dict[Op, LoweringRule] = {
    Op.MATMUL: plain("MatMul"),
    Op.ADD: _add,
    Op.SUB: _sub,
    Op.MUL: plain("Mul"),
    Op.DIV: plain("Div"),
    Op.POW: plain("Pow"),
    Op.MINIMUM: plain("Min"),
    Op.MAXIMUM: plain("Max"),
    Op.EXP: plain("Exp"),
    Op.LOG: plain("Log"),
    Op.SQRT: plain("Sqrt"),
    Op.RSQRT: _rsqrt,
    Op.ABS: plain("Abs"),
    Op.NEG: plain("Neg"),
    Op.SIN: plain("Sin"),
    Op.COS: plain("Cos"),
    Op.FLOOR: plain("Floor"),
    Op.CEIL: plain("Ceil"),
    Op.ROUND: plain("Round"),
    Op.SIGN: plain("Sign"),
    Op.ERF: plain("Erf"),
    Op.REQUANTIZE: _requantize,
}
