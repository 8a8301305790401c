"""ONNX facet: how each op of the graph is written, on float or on quantized tensors alike: `ONNX_LOWERINGS`, put
together from the families' own."""

from __future__ import annotations

from toolchain.formats.onnx.lowerings.activations import ACTIVATIONS
from toolchain.formats.onnx.lowerings.arithmetic import ARITHMETIC
from toolchain.formats.onnx.lowerings.indexing import INDEXING
from toolchain.formats.onnx.lowerings.layers import LAYERS
from toolchain.formats.onnx.lowerings.logic import LOGIC
from toolchain.formats.onnx.lowerings.moves import MOVES
from toolchain.formats.onnx.lowerings.norms import NORMS
from toolchain.formats.onnx.lowerings.padding import PADDING
from toolchain.formats.onnx.lowerings.pooling import POOLING
from toolchain.formats.onnx.lowerings.reductions import REDUCTIONS
from toolchain.formats.onnx.lowerings.resizing import RESIZING
from toolchain.formats.onnx.lowerings.rule import LoweringRule, clamp
from toolchain.formats.onnx.lowerings.weight_only import is_weight_only, lower_weight_only
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import DType, Node, Op
from toolchain.quantization import clamp_is_implied

ONNX_LOWERINGS: dict[Op, LoweringRule] = {
    **LAYERS,
    **NORMS,
    **REDUCTIONS,
    **ACTIVATIONS,
    **ARITHMETIC,
    **LOGIC,
    **POOLING,
    **MOVES,
    **INDEXING,
    **PADDING,
    **RESIZING,
}


def lower_node(scope: Scope, node: Node) -> None:
    """Write `node`; one that computes in float reads dequantized tensors, and its result is quantized behind it."""
    inputs = [scope.tensor(name) for name in node.inputs]
    result = scope.tensor(node.output)
    if node.output not in scope.float_nodes:
        _lower_fused(scope, node, inputs, result)
        return
    if not is_weight_only(node, inputs):
        inputs = [Tensor(scope.real(tensor)) for tensor in inputs]
    unrounded = result if result.params is None else scope.auxiliary(node.output, "unrounded")
    _lower_fused(scope, node, inputs, unrounded)
    if result.params is not None:
        scope.quantize(unrounded.name, result)


def _lower_fused(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """`node` and its fused activation, which is nothing where saturation does the same."""
    activation = str(node.attributes.get("activation", "none"))
    if activation == "none" or (result.params is not None and clamp_is_implied(result.params, activation)):
        _lower(scope, node, inputs, result)
    elif result.params is not None and result.params.dtype is DType.INT16:
        # onnxruntime has no Clip of int16: clamped before it is rounded
        unclamped = scope.auxiliary(node.output, "unclamped")
        unrounded = scope.auxiliary(node.output, "unrounded")
        _lower(scope, node, inputs, unclamped)
        clamp(scope, unclamped, unrounded, activation)
        scope.quantize(unrounded.name, result)
    else:
        unclamped = scope.auxiliary(node.output, "unclamped", result.params)
        _lower(scope, node, inputs, unclamped)
        clamp(scope, unclamped, result, activation)


def _lower(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    lowering = lower_weight_only if is_weight_only(node, inputs) else ONNX_LOWERINGS[node.op]
    lowering(scope, node, inputs, result)
