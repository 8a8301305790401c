"""TFLite facet: how each op is written as operators of the file."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Lowering
from toolchain.formats.tflite.lowerings.activations import ACTIVATIONS
from toolchain.formats.tflite.lowerings.arithmetic import ARITHMETIC
from toolchain.formats.tflite.lowerings.elementwise import binary, lower_batch_norm, rectifier, unary
from toolchain.formats.tflite.lowerings.indexing import INDEXING
from toolchain.formats.tflite.lowerings.layers import lower_conv2d, lower_depthwise_conv2d, lower_linear
from toolchain.formats.tflite.lowerings.logic import LOGIC
from toolchain.formats.tflite.lowerings.moves import (
    lower_concat,
    lower_mean,
    lower_permute,
    lower_reshape,
    lower_slice,
)
from toolchain.formats.tflite.lowerings.norms import NORMS
from toolchain.formats.tflite.lowerings.padding import PADDING
from toolchain.formats.tflite.lowerings.pools import lower_avg_pool2d, lower_max_pool2d
from toolchain.formats.tflite.lowerings.reductions import REDUCTIONS
from toolchain.formats.tflite.lowerings.resizing import RESIZING
from toolchain.formats.tflite.lowerings.transposed import lower_conv_transpose2d
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
    **ACTIVATIONS,
    **ARITHMETIC,
    **LOGIC,
    Op.ADD: binary(Builtin.ADD, schema.AddOptionsT),
    Op.SUB: binary(Builtin.SUB, schema.SubOptionsT),
    Op.MUL: binary(Builtin.MUL, schema.MulOptionsT),
    Op.MAX_POOL2D: lower_max_pool2d,
    Op.AVG_POOL2D: lower_avg_pool2d,
    Op.MEAN: lower_mean,
    Op.RESHAPE: lower_reshape,
    Op.PERMUTE: lower_permute,
    Op.CONCAT: lower_concat,
    **PADDING,
    **RESIZING,
    Op.CONV_TRANSPOSE2D: lower_conv_transpose2d,
    Op.SLICE: lower_slice,
    **INDEXING,
    **NORMS,
    **REDUCTIONS,
}
