"""ONNX facet: how each op of the graph is written, on float or on quantized tensors alike: `ONNX_LOWERINGS`, put
together from the families' own."""

from __future__ import annotations

import numpy as np

from toolchain.formats.onnx.lowerings.activations import ACTIVATIONS
from toolchain.formats.onnx.lowerings.arithmetic import ARITHMETIC
from toolchain.formats.onnx.lowerings.indexing import INDEXING
from toolchain.formats.onnx.lowerings.layers import LAYERS
from toolchain.formats.onnx.lowerings.logic import LOGIC
from toolchain.formats.onnx.lowerings.moves import MOVES
from toolchain.formats.onnx.lowerings.norms import NORMS
from toolchain.formats.onnx.lowerings.padding import PADDING
from toolchain.formats.onnx.lowerings.pooling import POOLING
from toolchain.formats.onnx.lowerings.recurrent import RECURRENT_LAYERS
from toolchain.formats.onnx.lowerings.reductions import REDUCTIONS
from toolchain.formats.onnx.lowerings.resizing import RESIZING
from toolchain.formats.onnx.lowerings.rule import LoweringRule, clamp
from toolchain.formats.onnx.lowerings.weight_only import (
    clamp_product,
    has_blocks,
    is_dequantized,
    is_weight_only,
    lower_weight_only,
)
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import WEIGHTED, DType, Node, Op
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
    **RECURRENT_LAYERS,
}

_ENDS = ("lowest", "highest")


def lower_node(scope: Scope, node: Node) -> None:
    """Write `node`; one that computes in float reads dequantized tensors, and its result is quantized behind it. So
    does one on int16, for which onnxruntime has no kernels: it is the same arithmetic, rounded once. With `qdq_only`
    what one node becomes is rounded op by op, as compilers of NPUs read it."""
    inputs = [scope.tensor(name) for name in node.inputs]
    result = scope.tensor(node.output)
    is_wide = any(tensor.params is not None and tensor.params.dtype is DType.INT16 for tensor in (*inputs, result))
    if node.output not in scope.float_nodes and (scope.qdq_only or not is_wide):
        _lower_fused(scope, node, inputs, result)
        return
    if has_blocks(node, inputs):
        inputs = [Tensor(scope.real(inputs[0])), *inputs[1:]]
    if not is_weight_only(node, inputs):
        keeps_weight = node.op in WEIGHTED and inputs[1].params is None and inputs[0].params is not None
        inputs = [Tensor(scope.real(tensor)) for tensor in inputs]
        if keeps_weight:
            inputs[0] = _held_apart(scope, node)
    unrounded = result if result.params is None else scope.auxiliary(node.output, "unrounded")
    _lower_fused(scope, node, inputs, unrounded)
    if result.params is not None:
        scope.quantize(unrounded.name, result)


def _held_apart(scope: Scope, node: Node) -> Tensor:
    """What the float layer `node` reads, with a Clip behind its DequantizeLinear that changes nothing: onnxruntime
    quantizes the float weights of a layer that reads a DequantizeLinear (its WeightBiasQuantization)."""
    source = scope.tensor(node.inputs[0])
    assert source.params is not None
    held = scope.auxiliary(node.inputs[0], "held")
    bounds = (
        scope.store(f"{held.name}/{key}", np.asarray(bound, np.float32))
        for key, bound in zip(_ENDS, source.params.bounds, strict=True)
    )
    scope.emit("Clip", [scope.real(source), *bounds], held.name)
    return held


def _lower_fused(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    """`node` and its fused activation, which is nothing where saturation does the same."""
    activation = str(node.attributes.get("activation", "none"))
    if activation == "none" or (result.params is not None and clamp_is_implied(result.params, activation)):
        _lower(scope, node, inputs, result)
    else:
        unclamped = scope.auxiliary(node.output, "unclamped", result.params)
        _lower(scope, node, inputs, unclamped)
        if is_dequantized(node, inputs) and result.params is None:
            clamp_product(scope, node, unclamped, result)
        else:
            clamp(scope, unclamped, result, activation)


def _lower(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    lowering = lower_weight_only if is_weight_only(node, inputs) else ONNX_LOWERINGS[node.op]
    lowering(scope, node, inputs, result)
