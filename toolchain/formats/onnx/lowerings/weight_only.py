"""Linear layers of integer weights and float activations, as onnxruntime has fast kernels for.

int8: `y = float(MatMulInteger(q_x, W^T)) * (s_x s_w) + b` with x quantized as it comes (DynamicQuantizeLinear), one
fused kernel, DynamicQuantizeMatMul. int4: `y = x DequantizeLinear(W^T) + b`, fused to MatMulNBits. The file holds W as
the graph has it, (out, in); onnxruntime transposes it once, as it loads the file. Scales of blocks of inputs lie as the
transposed weight needs them, (in / block, out), in float16, which holds them exactly; they are widened at load.

Convolutions have no such kernel that is worth it (ConvInteger takes six times as long as float): `Scope.real` gives
them their weights in float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import DType, Node, Op


def is_weight_only(node: Node, inputs: Sequence[Tensor]) -> bool:
    """Whether `node` is a linear layer that reads floats and an integer weight."""
    return node.op is Op.LINEAR and inputs[0].params is None and inputs[1].params is not None


def has_blocks(node: Node, inputs: Sequence[Tensor]) -> bool:
    """Whether `node` is a linear layer whose inputs share scales by blocks."""
    return node.op is Op.LINEAR and inputs[1].params is not None and inputs[1].params.block is not None


def is_dequantized(node: Node, inputs: Sequence[Tensor]) -> bool:
    """Whether `node` is such a layer and multiplies by dequantized weights, so that onnxruntime takes MatMulNBits."""
    return is_weight_only(node, inputs) and inputs[1].params is not None and inputs[1].params.dtype is DType.INT4


def lower_weight_only(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """The rule of a node that `is_weight_only` holds for, without its fused activation."""
    source, weight, *bias = inputs
    assert weight.params is not None
    transposed = Tensor(scope.auxiliary(node.output, "weight").name, weight.params)
    scope.emit("Transpose", [weight.name], transposed.name, perm=[1, 0])
    product = scope.auxiliary(node.output, "products").name if bias else result.name
    if is_dequantized(node, inputs):
        _multiply_dequantized(scope, source, weight, transposed, product)
    else:
        _multiply_integers(scope, node, source, weight, transposed, product)
    if bias:
        scope.emit("Add", [product, bias[0].name], result.name, name=node.name)


def clamp_product(scope: Scope, node: Node, product: Tensor, result: Tensor) -> None:
    """relu or relu6 of what a layer of int4 weights has made: a Relu or a Clip behind it keeps onnxruntime from fusing
    MatMulNBits."""
    low, high = (np.asarray(bound, np.float32) for bound in (0, 6))
    capped = product.name
    if node["activation"] == "relu6":
        capped = scope.auxiliary(node.output, "capped").name
        scope.emit("Min", [product.name, scope.store(f"{node.output}/maximum", high)], capped)
    scope.emit("Max", [capped, scope.store(f"{node.output}/minimum", low)], result.name)


def _multiply_dequantized(scope: Scope, source: Tensor, weight: Tensor, transposed: Tensor, product: str) -> None:
    assert weight.params is not None
    if weight.params.block is not None:
        _multiply_blocks(scope, source, weight, transposed, product)
        return
    scale = scope.store(f"{weight.name}/scale", weight.params.scale)
    real = scope.auxiliary(transposed.name, "real").name
    axis: dict[str, Any] = {} if weight.params.axis is None else {"axis": 1}
    scope.emit("DequantizeLinear", [transposed.name, scale], real, **axis)
    scope.emit("MatMul", [source.name, real], product)


def _multiply_blocks(scope: Scope, source: Tensor, weight: Tensor, transposed: Tensor, product: str) -> None:
    assert weight.params is not None
    held = scope.store(f"{weight.name}/scale", np.ascontiguousarray(weight.params.scale.T).astype(np.float16))
    scale, real = (scope.auxiliary(transposed.name, part).name for part in ("scale", "real"))
    scope.emit("Cast", [held], scale, to=TensorProto.FLOAT)
    scope.emit("DequantizeLinear", [transposed.name, scale], real, axis=0, block_size=weight.params.block)
    scope.emit("MatMul", [source.name, real], product)


def _multiply_integers(
    scope: Scope, node: Node, source: Tensor, weight: Tensor, transposed: Tensor, product: str
) -> None:
    assert weight.params is not None
    integers, step, zero = (scope.auxiliary(node.output, f"input/{part}").name for part in ("integer", "step", "zero"))
    scope.emit_many("DynamicQuantizeLinear", [source.name], [integers, step, zero])
    sums, floats, scale = (scope.auxiliary(node.output, part).name for part in ("sums", "floats", "step"))
    scope.emit("MatMulInteger", [integers, transposed.name, zero], sums)
    scope.emit("Cast", [sums], floats, to=TensorProto.FLOAT)
    scope.emit("Mul", [step, scope.store(f"{weight.name}/scale", weight.params.scale)], scale)
    scope.emit("Mul", [floats, scale], product)
