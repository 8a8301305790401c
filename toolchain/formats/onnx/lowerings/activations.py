"""Activations. Where the plain QDQ form would stay in float in onnxruntime, an equal one that has an integer kernel,
unless all ops are to be in QDQ form:

    relu(x)        LeakyRelu(x), slope 0
    tanh(x)        2 sigmoid(2x) - 1: twice the scale before, half the scale and a lower zero point behind

The others have none and are computed in float between integer tensors. Written out for opsets that lack them:

    gelu(x)   x / 2 (1 + erf(x / sqrt 2)),  or  x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
    mish(x)   x tanh(softplus(x))
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, pi, sqrt

import numpy as np

from toolchain.formats.onnx.lowerings.rule import LoweringRule, bound_names, clamp, number, plain
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import DType, Node, Op
from toolchain.quantization import AffineParams, clamp_is_implied, quantize


def _rectifier(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """relu and relu6 of a tensor of other parameters."""
    (source,) = inputs
    activation = node.op.value
    if scope.qdq_only:
        clamp(scope, source, result, activation, node.name)
    elif result.params is None:
        clamp(scope, Tensor(scope.real(source)), result, activation, node.name)
    elif clamp_is_implied(result.params, activation):
        scope.apply("LeakyRelu", inputs, result, name=node.name, alpha=0.0)
    else:
        unclamped = scope.auxiliary(node.output, "unclamped", result.params)
        scope.apply("LeakyRelu", inputs, unclamped, name=node.name, alpha=0.0)
        clamp(scope, unclamped, result, activation)


def _leaky_relu(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("LeakyRelu", inputs, result, name=node.name, alpha=float(node["slope"]))


def _sigmoid(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """QNN computes a sigmoid of 16 bits with a scale of 1 / 65536 from 0 on, whatever it is told: that is written, and
    what was asked for behind it."""
    if result.params is None or result.params.dtype is not DType.UINT16:
        scope.apply("Sigmoid", inputs, result, name=node.name)
        return
    scale, zero = np.asarray(2.0**-16, np.float32), np.asarray(0)
    gate = scope.auxiliary(node.output, "gate", AffineParams(DType.UINT16, scale, zero, q_min=0, q_max=2**16 - 1))
    scope.apply("Sigmoid", inputs, gate, name=node.name)
    scope.quantize(scope.real(gate), result)


def _tanh(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    (source,) = inputs
    halved = None if scope.qdq_only else _sigmoid_params(result.params)
    if source.params is None or result.params is None or halved is None:
        scope.apply("Tanh", inputs, result, name=node.name)
        return
    # Identity gives the same integers another scale, so that every tensor of the file has one
    doubled = scope.auxiliary(node.output, "doubled", replace(source.params, scale=source.params.scale * 2))
    sigmoid = scope.auxiliary(node.output, "sigmoid", halved)
    scope.emit("Identity", [source.name], doubled.name)
    scope.apply("Sigmoid", [doubled], sigmoid, name=node.name)
    scope.emit("Identity", [sigmoid.name], result.name)


def _sigmoid_params(params: AffineParams | None) -> AffineParams | None:
    """Parameters under which sigmoid(2x) has the integers that tanh(x) has under `params`, if there are such.

    (2s - 1) / scale + zero = s / (scale / 2) + (zero - 1 / scale), which asks for a whole 1 / scale.
    """
    if params is None:
        return None
    one = 1 / float(params.scale)
    zero = float(params.zero_point) - one
    if not one.is_integer() or not params.q_min <= zero <= params.q_max:
        return None
    return replace(params, scale=params.scale / 2, zero_point=np.asarray(zero))


def _hardswish(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    if scope.opset >= 14:
        scope.apply("HardSwish", inputs, result, name=node.name)
        return
    (source,) = inputs
    gate = scope.auxiliary(node.output, "gate")
    scope.apply("HardSigmoid", [source], gate, alpha=1 / 6, beta=0.5)
    scope.apply("Mul", [source, gate], result, name=node.name)


def _softmax(op_type: str) -> LoweringRule:
    def rule(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
        scope.apply(op_type, inputs, result, name=node.name, axis=node["axis"])

    return rule


def _clamp(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """Clip, without the bounds that are infinite; of integers those of the result, which end at its own bounds."""
    if result.params is not None and not scope.qdq_only:
        _clamp_integers(scope, node, inputs[0], result, result.params)
        return
    dtype = scope.graph.types[node.output].dtype
    bounds = [
        scope.store(f"{node.output}/{key}", np.asarray(node[key], dtype.numpy)) if isfinite(node[key]) else ""
        for key in ("low", "high")
    ]
    scope.apply("Clip", [*inputs, *bounds], result, name=node.name)


def _clamp_integers(scope: Scope, node: Node, source: Tensor, result: Tensor, params: AffineParams) -> None:
    lowest, highest = params.bounds
    if node["low"] <= lowest and highest <= node["high"]:
        scope.quantize(scope.real(source), result)
        return
    unclamped = scope.auxiliary(node.output, "unclamped", params)
    scope.quantize(scope.real(source), unclamped)
    low, high = (int(quantize(np.asarray(node[key], np.float64), params)) for key in ("low", "high"))
    scope.emit("Clip", [unclamped.name, *bound_names(scope, result, low, high)], result.name, name=node.name)


def _prelu(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("PRelu", inputs, result, name=node.name)


def _gelu(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    (source,) = inputs
    if scope.opset >= 20:
        scope.apply("Gelu", inputs, result, name=node.name, approximate="tanh" if node["approximate"] else "none")
        return
    signal = _tanh_signal(scope, node, source) if node["approximate"] else _erf_signal(scope, node, source)
    raised, gated = (scope.auxiliary(node.output, suffix) for suffix in ("raised", "gated"))
    scope.apply("Add", [signal, number(scope, node, "one", 1.0)], raised)
    scope.apply("Mul", [source, raised], gated)
    scope.apply("Mul", [gated, number(scope, node, "half", 0.5)], result, name=node.name)


def _erf_signal(scope: Scope, node: Node, source: Tensor) -> Tensor:
    scaled, signal = (scope.auxiliary(node.output, suffix) for suffix in ("scaled", "erf"))
    scope.apply("Div", [source, number(scope, node, "sqrt_two", sqrt(2))], scaled)
    scope.apply("Erf", [scaled], signal)
    return signal


def _tanh_signal(scope: Scope, node: Node, source: Tensor) -> Tensor:
    """tanh(x (a + b x^2)), which is tanh(sqrt(2 / pi) (x + 0.044715 x^3))."""
    names = ("square", "bent", "slope", "scaled", "tanh")
    square, bent, slope, scaled, signal = (scope.auxiliary(node.output, suffix) for suffix in names)
    scope.apply("Mul", [source, source], square)
    scope.apply("Mul", [square, number(scope, node, "cubic", 0.044715 * sqrt(2 / pi))], bent)
    scope.apply("Add", [bent, number(scope, node, "linear", sqrt(2 / pi))], slope)
    scope.apply("Mul", [source, slope], scaled)
    scope.apply("Tanh", [scaled], signal)
    return signal


def _mish(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    (source,) = inputs
    if scope.opset >= 18:
        scope.apply("Mish", inputs, result, name=node.name)
        return
    softplus, signal = (scope.auxiliary(node.output, suffix) for suffix in ("softplus", "tanh"))
    scope.apply("Softplus", [source], softplus)
    scope.apply("Tanh", [softplus], signal)
    scope.apply("Mul", [source, signal], result, name=node.name)


ACTIVATIONS: dict[Op, LoweringRule] = {
    Op.RELU: _rectifier,
    Op.RELU6: _rectifier,
    Op.LEAKY_RELU: _leaky_relu,
    Op.SIGMOID: _sigmoid,
    Op.TANH: _tanh,
    Op.HARDSWISH: _hardswish,
    Op.PRELU: _prelu,
    Op.ELU: plain("Elu", alpha=1.0),
    Op.GELU: _gelu,
    Op.SOFTPLUS: plain("Softplus"),
    Op.MISH: _mish,
    Op.CLAMP: _clamp,
    Op.SOFTMAX: _softmax("Softmax"),
    Op.LOG_SOFTMAX: _softmax("LogSoftmax"),
}
