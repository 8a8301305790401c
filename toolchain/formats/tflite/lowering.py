"""TFLite facet: how each op is written as operators of the file."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Lowering
from toolchain.formats.tflite.lowering_elementwise import binary, lower_batch_norm, rectifier, unary
from toolchain.formats.tflite.lowering_layers import lower_conv2d, lower_depthwise_conv2d, lower_linear
from toolchain.formats.tflite.lowering_moves import (
    lower_concat,
    lower_mean,
    lower_pad,
    lower_permute,
    lower_reshape,
    lower_slice,
)
from toolchain.formats.tflite.lowering_pools import lower_avg_pool2d, lower_max_pool2d
from toolchain.graph import Op

TFLITE_LOWERINGS: dict[Op, Lowering] = {
    Op.CONV2D: lower_conv2d,
    Op.DEPTHWISE_CONV2D: lower_depthwise_conv2d,
    Op.LINEAR: lower_linear,
    Op.BATCH_NORM: lower_batch_norm,
    Op.RELU: rectifier(Builtin.RELU, "relu"),
    Op.RELU6: rectifier(Builtin.RELU6, "relu6"),
    Op.LEAKY_RELU: unary(Builtin.LEAKY_RELU, lambda node: schema.LeakyReluOptionsT(alpha=node["slope"])),
    Op.SIGMOID: unary(Builtin.LOGISTIC),
    Op.TANH: unary(Builtin.TANH),
    Op.HARDSWISH: unary(Builtin.HARD_SWISH, lambda node: schema.HardSwishOptionsT()),
    Op.SOFTMAX: unary(Builtin.SOFTMAX, lambda node: schema.SoftmaxOptionsT(beta=1.0)),
    Op.ADD: binary(Builtin.ADD, schema.AddOptionsT),
    Op.SUB: binary(Builtin.SUB, schema.SubOptionsT),
    Op.MUL: binary(Builtin.MUL, schema.MulOptionsT),
    Op.MAX_POOL2D: lower_max_pool2d,
    Op.AVG_POOL2D: lower_avg_pool2d,
    Op.MEAN: lower_mean,
    Op.RESHAPE: lower_reshape,
    Op.PERMUTE: lower_permute,
    Op.CONCAT: lower_concat,
    Op.PAD: lower_pad,
    Op.SLICE: lower_slice,
}
