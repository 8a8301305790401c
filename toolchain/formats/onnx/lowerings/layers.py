"""Layers with weights, and norms."""

from __future__ import annotations

from math import prod

from toolchain.formats.onnx.kernels import SWAP, regrouped
from toolchain.formats.onnx.lowerings.rule import LoweringRule, reshape_to
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op
from toolchain.graph.types import Shape


def _convolution(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    is_depthwise = node.op is Op.DEPTHWISE_CONV2D
    groups = scope.graph.types[node.inputs[0]].shape[1] if is_depthwise else node["groups"]
    kernel = scope.graph.types[node.inputs[1]].shape[2:]
    window = {"kernel_shape": kernel, "strides": node["stride"], "pads": node["padding"]}
    scope.apply("Conv", inputs, result, name=node.name, **window, dilations=node["dilation"], group=groups)


def _conv_transpose2d(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    source, weight, *bias = inputs
    shape, groups = scope.graph.types[node.inputs[1]].shape, node["groups"]
    if node.inputs[1] not in scope.transposed:
        weight = _inputs_first(scope, node, weight, shape)
    window = {"kernel_shape": shape[2:], "strides": node["stride"], "pads": node["padding"]}
    window |= {"dilations": node["dilation"], "output_padding": node["output_padding"], "group": groups}
    scope.apply("ConvTranspose", [source, weight, *bias], result, name=node.name, **window)


def _inputs_first(scope: Scope, node: Node, weight: Tensor, shape: Shape) -> Tensor:
    """A weight that is stored as the graph has it, put in ONNX's order when the file is run."""
    split, wanted = regrouped(shape, node["groups"])
    parts = [scope.auxiliary(node.output, f"weight_{step}") for step in ("split", "swapped", "regrouped")]
    reshape_to(scope, Tensor(scope.real(weight)), parts[0], split)
    scope.apply("Transpose", [parts[0]], parts[1], perm=SWAP)
    reshape_to(scope, parts[1], parts[2], wanted)
    return parts[2]


def _linear(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """Gemm, the form with an integer kernel that adds the bias to the accumulator; it takes rank 2 alone."""
    source, *parameters = inputs
    shape = scope.graph.types[node.inputs[0]].shape
    if len(shape) == 2:
        scope.apply("Gemm", inputs, result, name=node.name, transB=1)
        return
    rows = scope.auxiliary(node.output, "rows", source.params)
    products = scope.auxiliary(node.output, "products", result.params)
    reshape_to(scope, source, rows, (prod(shape[:-1]), shape[-1]))
    scope.apply("Gemm", [rows, *parameters], products, name=node.name, transB=1)
    reshape_to(scope, products, result, scope.graph.types[node.output].shape)


def _batch_norm(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("BatchNormalization", inputs, result, name=node.name, epsilon=node["epsilon"])


LAYERS: dict[Op, LoweringRule] = {
    Op.CONV2D: _convolution,
    Op.DEPTHWISE_CONV2D: _convolution,
    Op.CONV_TRANSPOSE2D: _conv_transpose2d,
    Op.LINEAR: _linear,
    Op.BATCH_NORM: _batch_norm,
}
