"""Convolutions and linear layers as TFLite operators.

Weights lie as the kernels read them: `(C_out, kH, kW, C_in / groups)`, `(1, kH, kW, C_in * multiplier)`,
`(C_out, C_in)`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import ACTIVATIONS, Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.kernels import row_order, rows_of
from toolchain.formats.tflite.layout import CHANNELS_LAST, Flattened, Layout, identity
from toolchain.formats.tflite.names import PRODUCT_SUFFIX
from toolchain.formats.tflite.windows import node_windows, padded_input
from toolchain.graph import Node, Op
from toolchain.quantization.affine import bias_params

_CONV = CHANNELS_LAST
_DEPTHWISE = Layout((1, 2, 3, 0))


def _conv2d(emitter: Emitter, node: Node) -> None:
    """CONV_2D; a filter of fewer input channels than the input has makes it a grouped one."""
    source, padding = padded_input(emitter, node, node_windows(emitter, node))
    options = schema.Conv2DOptionsT(
        padding=padding,
        strideH=node["stride"][0],
        strideW=node["stride"][1],
        dilationHFactor=node["dilation"][0],
        dilationWFactor=node["dilation"][1],
        fusedActivationFunction=ACTIVATIONS[node["activation"]],
    )
    inputs = [source, *_weights(emitter, node, _CONV)]
    emitter.emit(Builtin.CONV_2D, inputs, emitter.result(node), options)


def _depthwise_conv2d(emitter: Emitter, node: Node) -> None:
    """DEPTHWISE_CONV_2D."""
    source, padding = padded_input(emitter, node, node_windows(emitter, node))
    weight, bias = _weights(emitter, node, _DEPTHWISE)
    options = schema.DepthwiseConv2DOptionsT(
        padding=padding,
        strideH=node["stride"][0],
        strideW=node["stride"][1],
        dilationHFactor=node["dilation"][0],
        dilationWFactor=node["dilation"][1],
        depthMultiplier=weight.shape[3] // source.shape[3],
        fusedActivationFunction=ACTIVATIONS[node["activation"]],
    )
    emitter.emit(Builtin.DEPTHWISE_CONV_2D, [source, weight, bias], emitter.result(node), options)


def _linear(emitter: Emitter, node: Node) -> None:
    """FULLY_CONNECTED; the weight's columns take the order in which the input was flattened, its rows that in which the
    result becomes an image. Columns that share scales by blocks keep their order: there the input is moved."""
    (source,) = emitter.inputs(node)
    (wanted, *_) = emitter.placement(node).wanted
    flat = wanted.flattened if wanted else None
    is_blocked = has_blocks(emitter, node)
    if wanted and flat and is_blocked:
        shape = emitter.graph.types[node.inputs[0]].shape
        source, flat = emitter.moved(source, wanted, replace(wanted, flattened=None), shape), None
    columns = Layout((0, 1), None if flat is None else Flattened(1, flat.shape, flat.order))
    options = schema.FullyConnectedOptionsT(
        fusedActivationFunction=ACTIVATIONS["none" if is_blocked else node["activation"]],
        keepNumDims=len(source.shape) != 2,
        # float activations of kernels that quantize them as they run: with a zero point
        asymmetricQuantizeInputs=emitter.numbers.weights_only,
    )
    rows = row_order(emitter.plan.layouts[node.output])
    weights = _weights(emitter, node, columns) if rows is None else _ordered_weights(emitter, node, columns, rows)
    inputs, result = [source, *weights], emitter.result(node)
    if not is_blocked or node["activation"] == "none":
        emitter.emit(Builtin.FULLY_CONNECTED, inputs, result, options)
        return
    # outside XNNPACK, kernels forget the activation where scales are those of blocks
    product = emitter.temporary(result.name + PRODUCT_SUFFIX, result.shape, result)
    emitter.emit(Builtin.FULLY_CONNECTED, inputs, product, options)
    emitter.emit(Builtin.RELU if node["activation"] == "relu" else Builtin.RELU6, [product], result)


def has_blocks(emitter: Emitter, node: Node) -> bool:
    """Whether inputs of the layer share scales by blocks."""
    params = emitter.numbers.params.get(node.inputs[1])
    return params is not None and params.block is not None


def _weights(emitter: Emitter, node: Node, layout: Layout) -> list[Operand]:
    _, weight, *bias = node.inputs
    placed = emitter.constant(weight, layout, is_native=has_hybrid_kernel(emitter, node))
    if node.output in emitter.numbers.on_reals:
        placed = emitter.real(placed)
    return [placed, emitter.constant(bias[0], identity(1)) if bias else zero_bias(emitter, node)]


def has_hybrid_kernel(emitter: Emitter, node: Node) -> bool:
    """Whether kernels compute with float activations and the integer weights as they are: not those of grouped and
    depthwise convolutions that are worth it, as XNNPACK has none."""
    if node.op is Op.CONV2D:
        return bool(node["groups"] == 1)
    return node.op is Op.LINEAR


def _ordered_weights(emitter: Emitter, node: Node, layout: Layout, rows: np.ndarray) -> list[Operand]:
    """Weight and bias with their output channels in the order `rows`."""
    placed = []
    for name, physical in zip(node.inputs[1:], (layout, identity(1)), strict=False):
        params = emitter.numbers.params.get(name)
        ordered = physical.to_physical(emitter.numbers.stored(name)[rows])
        placed.append(emitter.add_constant(name, ordered, params and rows_of(params, rows), is_native=True))
    if len(placed) == 2:
        return placed
    zero = zero_bias(emitter, node)
    values = np.zeros(zero.shape, zero.dtype.numpy)
    return [*placed, emitter.add_constant(zero.name, values, zero.params and rows_of(zero.params, rows))]


def zero_bias(emitter: Emitter, node: Node) -> Operand:
    """Convolutions without a bias are refused by some kernels and end the process in others."""
    (channels, *_) = emitter.graph.types[node.inputs[1]].shape
    source, weight = (emitter.numbers.params.get(name) for name in node.inputs[:2])
    if source is None or weight is None:
        return emitter.add_constant(f"{node.output}/bias", np.zeros(channels, np.float32))
    params = bias_params(source, weight)
    return emitter.add_constant(f"{node.output}/bias", np.zeros(channels, params.dtype.numpy), params)


LAYERS: dict[Op, Lowering] = {
    Op.CONV2D: _conv2d,
    Op.DEPTHWISE_CONV2D: _depthwise_conv2d,
    Op.LINEAR: _linear,
}
