"""ONNX facet: how each op of the graph is written, on float or on quantized tensors alike.

A rule writes `result = op(inputs)` into a `Scope`, without the fused activation. Where the plain QDQ form
would stay in float in onnxruntime, a rule takes an equal form that has an integer kernel:

    relu(x)        LeakyRelu(x), slope 0
    tanh(x)        2 sigmoid(2x) - 1: twice the scale before, half the scale and a lower zero point behind
    left - right   left + (-right), where -(q - z) = ~q - ~z on the bits of a byte
    mean           GlobalAveragePool over the averaged axes, moved behind the others
    pad            on the integers, with the integer of the pad's value

hardswish has none and is computed in float between integer tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import TypeAlias

import numpy as np

from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import DType, Node, Op
from toolchain.quantization import AffineParams, clamp_integers, clamp_is_implied, quantize

LoweringRule: TypeAlias = Callable[[Scope, Node, list[Tensor], Tensor], None]


def lower_node(scope: Scope, node: Node) -> None:
    """Write `node` and its fused activation, which is nothing where saturation does the same."""
    inputs = [scope.tensor(name) for name in node.inputs]
    result = scope.tensor(node.output)
    activation = str(node.attributes.get("activation", "none"))
    if activation == "none" or (result.params is not None and clamp_is_implied(result.params, activation)):
        ONNX_LOWERINGS[node.op](scope, node, inputs, result)
    else:
        unclamped = scope.auxiliary(node.output, "unclamped", result.params)
        ONNX_LOWERINGS[node.op](scope, node, inputs, unclamped)
        _clamp(scope, unclamped, result, activation)


def _clamp(scope: Scope, source: Tensor, result: Tensor, activation: str, name: str = "") -> None:
    """relu or relu6 of a tensor of the same parameters: Clip on integers, Relu or Clip on floats."""
    if result.params is not None:
        bounds = clamp_integers(result.params, activation)
        scope.emit("Clip", [source.name, *_bounds(scope, result, *bounds)], result.name, name=name)
    elif activation == "relu6":
        scope.emit("Clip", [source.name, *_bounds(scope, result, 0, 6)], result.name, name=name)
    else:
        scope.emit("Relu", [source.name], result.name, name=name)


def _bounds(scope: Scope, result: Tensor, low: float, high: float) -> list[str]:
    """Names of two scalars of the element type of `result`."""
    dtype = result.params.dtype if result.params is not None else scope.graph.types[result.name].dtype
    named = (("minimum", low), ("maximum", high))
    return [scope.store(f"{result.name}/{key}", np.asarray(value, dtype.numpy)) for key, value in named]


def _convolution(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    is_depthwise = node.op is Op.DEPTHWISE_CONV2D
    groups = scope.graph.types[node.inputs[0]].shape[1] if is_depthwise else node["groups"]
    kernel = scope.graph.types[node.inputs[1]].shape[2:]
    window = {"kernel_shape": kernel, "strides": node["stride"], "pads": node["padding"]}
    scope.apply("Conv", inputs, result, name=node.name, **window, dilations=node["dilation"], group=groups)


def _linear(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """Gemm, the form with an integer kernel that adds the bias to the accumulator; it takes rank 2 alone."""
    source, *parameters = inputs
    shape = scope.graph.types[node.inputs[0]].shape
    if len(shape) == 2:
        scope.apply("Gemm", inputs, result, name=node.name, transB=1)
        return
    rows = scope.auxiliary(node.output, "rows", source.params)
    products = scope.auxiliary(node.output, "products", result.params)
    _reshape_to(scope, source, rows, (prod(shape[:-1]), shape[-1]))
    scope.apply("Gemm", [rows, *parameters], products, name=node.name, transB=1)
    _reshape_to(scope, products, result, scope.graph.types[node.output].shape)


def _reshape_to(scope: Scope, source: Tensor, result: Tensor, shape: tuple[int, ...], name: str = "") -> None:
    stored = scope.store_axis_values(f"{result.name}/shape", shape)
    scope.apply("Reshape", [source, stored], result, name=name)


def _batch_norm(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("BatchNormalization", inputs, result, name=node.name, epsilon=node["epsilon"])


def _rectifier(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """relu and relu6 of a tensor of other parameters."""
    (source,) = inputs
    activation = node.op.value
    if result.params is None:
        _clamp(scope, Tensor(scope.real(source)), result, activation, node.name)
    elif clamp_is_implied(result.params, activation):
        scope.apply("LeakyRelu", inputs, result, name=node.name, alpha=0.0)
    else:
        unclamped = scope.auxiliary(node.output, "unclamped", result.params)
        scope.apply("LeakyRelu", inputs, unclamped, name=node.name, alpha=0.0)
        _clamp(scope, unclamped, result, activation)


def _leaky_relu(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("LeakyRelu", inputs, result, name=node.name, alpha=float(node["slope"]))


def _sigmoid(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("Sigmoid", inputs, result, name=node.name)


def _tanh(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    (source,) = inputs
    halved = _sigmoid_params(result.params)
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


def _softmax(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("Softmax", inputs, result, name=node.name, axis=node["axis"])


def _add(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("Add", inputs, result, name=node.name)


def _mul(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("Mul", inputs, result, name=node.name)


def _sub(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    left, right = inputs
    # ONNX subtracts bytes from opset 14 on
    if scope.opset < 14 or left.params is None or right.params is None or result.params is None:
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


def _max_pool2d(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    window = {"kernel_shape": node["kernel_size"], "strides": node["stride"], "pads": node["padding"]}
    scope.apply("MaxPool", inputs, result, name=node.name, **window)


def _avg_pool2d(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    window = {"kernel_shape": node["kernel_size"], "strides": node["stride"], "pads": node["padding"]}
    scope.apply("AveragePool", inputs, result, name=node.name, **window, count_include_pad=0)


def _mean(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    rank = scope.graph.types[node.inputs[0]].rank
    if rank == 4 and tuple(sorted(node["axes"])) == (2, 3):
        _global_mean(scope, node, inputs[0], result)
    elif inputs[0].params is None or result.params is None:
        _reduce_mean(scope, node, inputs, result)
    else:
        _mean_of_rows(scope, node, inputs[0], result)


def _global_mean(scope: Scope, node: Node, source: Tensor, result: Tensor) -> None:
    if node["keepdim"]:
        scope.apply("GlobalAveragePool", [source], result, name=node.name)
        return
    pooled = scope.auxiliary(node.output, "pooled", result.params)
    scope.apply("GlobalAveragePool", [source], pooled, name=node.name)
    _reshape_to(scope, pooled, result, scope.graph.types[node.output].shape)


def _reduce_mean(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    keepdims = int(node["keepdim"])
    if scope.opset >= 18:
        axes = scope.store_axis_values(f"{node.output}/axes", node["axes"])
        scope.apply("ReduceMean", [*inputs, axes], result, name=node.name, keepdims=keepdims)
    else:
        scope.apply("ReduceMean", inputs, result, name=node.name, axes=node["axes"], keepdims=keepdims)


def _mean_of_rows(scope: Scope, node: Node, source: Tensor, result: Tensor) -> None:
    shape, axes = scope.graph.types[node.inputs[0]].shape, tuple(sorted(node["axes"]))
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    if (*kept, *axes) != tuple(range(len(shape))):
        permuted = scope.auxiliary(node.output, "permuted", source.params)
        scope.apply("Transpose", [source], permuted, perm=(*kept, *axes))
        source = permuted
    rows = scope.auxiliary(node.output, "rows", source.params)
    pooled = scope.auxiliary(node.output, "pooled", result.params)
    _reshape_to(scope, source, rows, (1, prod(shape[a] for a in kept), prod(shape[a] for a in axes)))
    scope.apply("GlobalAveragePool", [rows], pooled, name=node.name)
    _reshape_to(scope, pooled, result, scope.graph.types[node.output].shape)


def _reshape(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    _reshape_to(scope, inputs[0], result, node["shape"], node.name)


def _permute(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("Transpose", inputs, result, name=node.name, perm=node["axes"])


def _concat(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("Concat", inputs, result, name=node.name, axis=node["axis"])


def _pad(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    (source,) = inputs
    amounts = scope.store_axis_values(f"{node.output}/amounts", node["amounts"])
    if source.params is None or source.params != result.params:
        value = np.asarray(node["value"], scope.graph.types[node.output].dtype.numpy)
        value_name = scope.store(f"{node.output}/value", value)
        scope.apply("Pad", [source, amounts, value_name], result, name=node.name)
    else:
        value = quantize(np.asarray(node["value"], np.float64), source.params)
        value_name = scope.store(f"{node.output}/value", value)
        scope.emit("Pad", [source.name, amounts, value_name], result.name, name=node.name)


def _slice(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    keys = ("starts", "stops", "axes", "steps")
    names = [scope.store_axis_values(f"{node.output}/{key}", node[key]) for key in keys]
    scope.apply("Slice", [*inputs, *names], result, name=node.name)


ONNX_LOWERINGS: dict[Op, LoweringRule] = {
    Op.CONV2D: _convolution,
    Op.DEPTHWISE_CONV2D: _convolution,
    Op.LINEAR: _linear,
    Op.BATCH_NORM: _batch_norm,
    Op.RELU: _rectifier,
    Op.RELU6: _rectifier,
    Op.LEAKY_RELU: _leaky_relu,
    Op.SIGMOID: _sigmoid,
    Op.TANH: _tanh,
    Op.HARDSWISH: _hardswish,
    Op.SOFTMAX: _softmax,
    Op.ADD: _add,
    Op.SUB: _sub,
    Op.MUL: _mul,
    Op.MAX_POOL2D: _max_pool2d,
    Op.AVG_POOL2D: _avg_pool2d,
    Op.MEAN: _mean,
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.CONCAT: _concat,
    Op.PAD: _pad,
    Op.SLICE: _slice,
}
