"""The closed set of ops, in the field's words, with the inputs and attributes each takes.

An op is one line here and one line in each facet table: shape (`graph.shapes`), cost (`graph.cost`), torch evaluation
(`engine.evaluate`), channel rule (`compress.channels`), quantization rule (`quantization.rules`), ONNX lowering
(`formats.onnx.lowering`) and TFLite lowering (`formats.tflite.lowering`). `tests/test_facets.py` walks them all.

Attribute conventions: `stride`, `dilation`, `kernel_size` are `(height, width)`; `padding` is `(top, left, bottom,
right)` and pads with zeros (minus infinity for max pooling); axes are never negative; `activation` is one of
`ACTIVATIONS` and is applied to the op's result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from toolchain.graph.types import Attribute

ACTIVATIONS = ("none", "relu", "relu6")


class Op(StrEnum):
    """Every op a graph may hold."""

    CONV2D = "conv2d"
    DEPTHWISE_CONV2D = "depthwise_conv2d"
    LINEAR = "linear"
    BATCH_NORM = "batch_norm"
    RELU = "relu"
    RELU6 = "relu6"
    LEAKY_RELU = "leaky_relu"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    HARDSWISH = "hardswish"
    SOFTMAX = "softmax"
    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    MAX_POOL2D = "max_pool2d"
    AVG_POOL2D = "avg_pool2d"
    MEAN = "mean"
    RESHAPE = "reshape"
    PERMUTE = "permute"
    CONCAT = "concat"
    PAD = "pad"
    SLICE = "slice"


@dataclass(frozen=True)
class Signature:
    """What a node of one op holds.

    `inputs` are the positional names (a trailing `?` marks one that may be absent, a trailing `*` one that repeats);
    `attributes` maps each attribute to its default, `None` where it must be given.
    """

    inputs: tuple[str, ...]
    attributes: dict[str, Attribute | None] = field(default_factory=dict)

    def accepts(self, count: int) -> bool:
        required = sum(not name.endswith("?") for name in self.inputs)
        most = float("inf") if any(name.endswith("*") for name in self.inputs) else len(self.inputs)
        return required <= count <= most


_FUSABLE: dict[str, Attribute | None] = {"activation": "none"}
_WINDOW: dict[str, Attribute | None] = {"stride": (1, 1), "padding": (0, 0, 0, 0)}
_CONVOLUTION = _WINDOW | {"dilation": (1, 1)} | _FUSABLE

SIGNATURES: dict[Op, Signature] = {
    # weight (C_out, C_in / groups, kH, kW), bias (C_out,)
    Op.CONV2D: Signature(("input", "weight", "bias?"), {"groups": 1} | _CONVOLUTION),
    # weight (C_in * multiplier, 1, kH, kW): output channel c reads input channel c // multiplier
    Op.DEPTHWISE_CONV2D: Signature(("input", "weight", "bias?"), _CONVOLUTION),
    # input (..., C_in), weight (C_out, C_in), bias (C_out,)
    Op.LINEAR: Signature(("input", "weight", "bias?"), _FUSABLE),
    # channel axis is 1; four vectors (C,)
    Op.BATCH_NORM: Signature(("input", "weight", "bias", "mean", "variance"), {"epsilon": 1e-5}),
    Op.RELU: Signature(("input",)),
    Op.RELU6: Signature(("input",)),
    Op.LEAKY_RELU: Signature(("input",), {"slope": 0.01}),
    Op.SIGMOID: Signature(("input",)),
    Op.TANH: Signature(("input",)),
    Op.HARDSWISH: Signature(("input",)),
    Op.SOFTMAX: Signature(("input",), {"axis": None}),
    Op.ADD: Signature(("left", "right"), _FUSABLE),
    Op.SUB: Signature(("left", "right"), _FUSABLE),
    Op.MUL: Signature(("left", "right"), _FUSABLE),
    Op.MAX_POOL2D: Signature(("input",), {"kernel_size": None} | _WINDOW),
    # padding is left out of the mean, as TFLite and ONNX (count_include_pad=0) have it
    Op.AVG_POOL2D: Signature(("input",), {"kernel_size": None} | _WINDOW),
    Op.MEAN: Signature(("input",), {"axes": None, "keepdim": False}),
    Op.RESHAPE: Signature(("input",), {"shape": None}),
    Op.PERMUTE: Signature(("input",), {"axes": None}),
    Op.CONCAT: Signature(("inputs*",), {"axis": None}),
    # amounts (before axis 0, ..., before axis n-1, after axis 0, ..., after axis n-1)
    Op.PAD: Signature(("input",), {"amounts": None, "value": 0.0}),
    # axes, starts, stops and steps are parallel; steps are positive
    Op.SLICE: Signature(("input",), {"axes": None, "starts": None, "stops": None, "steps": None}),
}

WEIGHTED = frozenset({Op.CONV2D, Op.DEPTHWISE_CONV2D, Op.LINEAR})
"""Ops whose second input is a weight and whose third, if any, is a bias; output channels are the weight's axis 0."""
