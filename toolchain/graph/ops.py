"""The closed set of ops, in the field's words, with the inputs and attributes each takes.

An op is one line here and one line in each facet table: shape (`graph.shapes`), cost (`graph.cost`), torch evaluation
(`engine.evaluate`), channel rule (`compress.channels.rules`), quantization rule (`quantization.rules`), ONNX lowering
(`formats.onnx.lowerings`) and TFLite lowering (`formats.tflite.lowerings`). `tests/test_facets.py` walks them all.

Attribute conventions: `stride`, `dilation`, `kernel_size` are `(height, width)`; `padding` is `(top, left, bottom,
right)` and pads with zeros (minus infinity for max pooling); axes are never negative; `activation` is one of
`ACTIVATIONS` and is applied to the op's result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from toolchain.graph.types import Attribute, DType

ACTIVATIONS = ("none", "relu", "relu6")


class Op(StrEnum):
    """Every op a graph may hold."""

    # layers with weights
    CONV2D = "conv2d"
    DEPTHWISE_CONV2D = "depthwise_conv2d"
    CONV_TRANSPOSE2D = "conv_transpose2d"
    LINEAR = "linear"
    # recurrent layers
    LSTM = "lstm"
    GRU = "gru"
    RNN = "rnn"
    # norms
    BATCH_NORM = "batch_norm"
    LAYER_NORM = "layer_norm"
    RMS_NORM = "rms_norm"
    # activations
    RELU = "relu"
    RELU6 = "relu6"
    LEAKY_RELU = "leaky_relu"
    PRELU = "prelu"
    ELU = "elu"
    GELU = "gelu"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    HARDSWISH = "hardswish"
    SOFTPLUS = "softplus"
    MISH = "mish"
    CLAMP = "clamp"
    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log_softmax"
    # functions of one tensor
    EXP = "exp"
    LOG = "log"
    SQRT = "sqrt"
    RSQRT = "rsqrt"
    ABS = "abs"
    NEG = "neg"
    SIN = "sin"
    COS = "cos"
    FLOOR = "floor"
    CEIL = "ceil"
    ROUND = "round"
    SIGN = "sign"
    ERF = "erf"
    CAST = "cast"
    REQUANTIZE = "requantize"
    # functions of two tensors and more
    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DIV = "div"
    POW = "pow"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    MATMUL = "matmul"
    EQUAL = "equal"
    NOT_EQUAL = "not_equal"
    LESS = "less"
    LESS_EQUAL = "less_equal"
    GREATER = "greater"
    GREATER_EQUAL = "greater_equal"
    LOGICAL_AND = "logical_and"
    LOGICAL_OR = "logical_or"
    LOGICAL_NOT = "logical_not"
    WHERE = "where"
    # pools and reductions
    MAX_POOL2D = "max_pool2d"
    AVG_POOL2D = "avg_pool2d"
    MEAN = "mean"
    SUM = "sum"
    REDUCE_MAX = "reduce_max"
    REDUCE_MIN = "reduce_min"
    ARGMAX = "argmax"
    ARGMIN = "argmin"
    CUMSUM = "cumsum"
    TOPK_VALUES = "topk_values"
    TOPK_INDICES = "topk_indices"
    # moves
    RESHAPE = "reshape"
    PERMUTE = "permute"
    CONCAT = "concat"
    PAD = "pad"
    SLICE = "slice"
    EXPAND = "expand"
    GATHER = "gather"
    GATHER_ELEMENTS = "gather_elements"
    RESIZE = "resize"
    DEPTH_TO_SPACE = "depth_to_space"
    SPACE_TO_DEPTH = "space_to_depth"


@dataclass(frozen=True)
class Signature:
    """What a node of one op holds.

    `inputs` are the positional names (a trailing `?` marks one that may be absent, a trailing `*` one that repeats);
    `attributes` maps each attribute to its default, `None` where it must be given. `dtype` is the result's element type
    where it is not that of the (last) input.
    """

    inputs: tuple[str, ...]
    attributes: dict[str, Attribute | None] = field(default_factory=dict)
    dtype: DType | None = None

    def accepts(self, count: int) -> bool:
        required = sum(not name.endswith("?") for name in self.inputs)
        most = float("inf") if any(name.endswith("*") for name in self.inputs) else len(self.inputs)
        return required <= count <= most


_FUSABLE: dict[str, Attribute | None] = {"activation": "none"}
_WINDOW: dict[str, Attribute | None] = {"stride": (1, 1), "padding": (0, 0, 0, 0)}
_CONVOLUTION = _WINDOW | {"dilation": (1, 1)} | _FUSABLE

_REDUCTION: dict[str, Attribute | None] = {"axes": None, "keepdim": False}
_BLOCKS: dict[str, Attribute | None] = {"block": None, "channels_first": True}

_RECURRENT = ("input", "weight", "recurrent_weight", "bias", "recurrent_bias", "hidden?")
_DIRECTION: dict[str, Attribute | None] = {"reverse": False}

_UNARY = Signature(("input",))
_BINARY = Signature(("left", "right"))
_COMPARISON = Signature(("left", "right"), dtype=DType.BOOL)
_FUSABLE_BINARY = Signature(("left", "right"), _FUSABLE)

SIGNATURES: dict[Op, Signature] = {
    # weight (C_out, C_in / groups, kH, kW), bias (C_out,)
    Op.CONV2D: Signature(("input", "weight", "bias?"), {"groups": 1} | _CONVOLUTION),
    # weight (C_in * multiplier, 1, kH, kW): output channel c reads input channel c // multiplier
    Op.DEPTHWISE_CONV2D: Signature(("input", "weight", "bias?"), _CONVOLUTION),
    # weight (C_out, C_in / groups, kH, kW), output channels first as everywhere (torch has them second); the result is
    # `(in - 1) stride + dilation (kernel - 1) + 1 + output_padding` long, less the padding
    Op.CONV_TRANSPOSE2D: Signature(
        ("input", "weight", "bias?"), _CONVOLUTION | {"groups": 1, "output_padding": (0, 0)}
    ),
    # input (..., C_in), weight (C_out, C_in), bias (C_out,)
    Op.LINEAR: Signature(("input", "weight", "bias?"), _FUSABLE),
    # one layer and direction over (N, T, C): hidden states (N, T, H) of all steps. `reverse` goes through time
    # backwards, each state at its own step. Weights (G H, C) and (G H, H), biases (G H,) of the G gates in torch's
    # order: i, f, g, o of an lstm, r, z, n of a gru. States before the first step (N, H), (1, H) for all, or zeros
    Op.GRU: Signature(_RECURRENT, _DIRECTION),
    Op.RNN: Signature(_RECURRENT, _DIRECTION | {"nonlinearity": "tanh"}),
    # `gives` is hidden, or cell for c after the last step, (N, H)
    Op.LSTM: Signature((*_RECURRENT, "cell?"), _DIRECTION | {"gives": "hidden"}),
    # channel axis is 1; four vectors (C,)
    Op.BATCH_NORM: Signature(("input", "weight", "bias", "mean", "variance"), {"epsilon": 1e-5}),
    # over `axes`, the last ones; weight and bias, both or none, have the shape of these axes
    Op.LAYER_NORM: Signature(("input", "weight?", "bias?"), {"axes": None, "epsilon": 1e-5}),
    Op.RMS_NORM: Signature(("input", "weight?"), {"axes": None, "epsilon": 1e-5}),
    Op.RELU: _UNARY,
    Op.RELU6: _UNARY,
    Op.LEAKY_RELU: Signature(("input",), {"slope": 0.01}),
    # slope: one value, or (C, 1, ...), which lies along axis 1 of the input
    Op.PRELU: Signature(("input", "slope")),
    # with alpha 1: any other is a leaky relu of it, whose slope is alpha
    Op.ELU: _UNARY,
    Op.GELU: Signature(("input",), {"approximate": False}),
    Op.SIGMOID: _UNARY,
    Op.TANH: _UNARY,
    Op.HARDSWISH: _UNARY,
    Op.SOFTPLUS: _UNARY,
    Op.MISH: _UNARY,
    # between `low` and `high`, either of which may be infinite
    Op.CLAMP: Signature(("input",), {"low": None, "high": None}),
    Op.SOFTMAX: Signature(("input",), {"axis": None}),
    Op.LOG_SOFTMAX: Signature(("input",), {"axis": None}),
    Op.EXP: _UNARY,
    Op.LOG: _UNARY,
    Op.SQRT: _UNARY,
    Op.RSQRT: _UNARY,
    Op.ABS: _UNARY,
    Op.NEG: _UNARY,
    Op.SIN: _UNARY,
    Op.COS: _UNARY,
    Op.FLOOR: _UNARY,
    Op.CEIL: _UNARY,
    # to the nearest whole number, ties to even
    Op.ROUND: _UNARY,
    Op.SIGN: _UNARY,
    Op.ERF: _UNARY,
    # to the element type named by `dtype`
    Op.CAST: Signature(("input",), {"dtype": None}),
    # the same values, but the result has quantization parameters of its own
    Op.REQUANTIZE: _UNARY,
    Op.ADD: _FUSABLE_BINARY,
    Op.SUB: _FUSABLE_BINARY,
    Op.MUL: _FUSABLE_BINARY,
    # of integers: towards zero
    Op.DIV: _BINARY,
    Op.POW: _BINARY,
    Op.MINIMUM: _BINARY,
    Op.MAXIMUM: _BINARY,
    # (..., M, K) and (..., K, N), leading axes broadcast
    Op.MATMUL: _BINARY,
    Op.EQUAL: _COMPARISON,
    Op.NOT_EQUAL: _COMPARISON,
    Op.LESS: _COMPARISON,
    Op.LESS_EQUAL: _COMPARISON,
    Op.GREATER: _COMPARISON,
    Op.GREATER_EQUAL: _COMPARISON,
    Op.LOGICAL_AND: _BINARY,
    Op.LOGICAL_OR: _BINARY,
    Op.LOGICAL_NOT: _UNARY,
    # where the condition holds `left`, else `right`
    Op.WHERE: Signature(("condition", "left", "right")),
    Op.MAX_POOL2D: Signature(("input",), {"kernel_size": None} | _WINDOW),
    # padding is left out of the mean, as TFLite and ONNX (count_include_pad=0) have it
    Op.AVG_POOL2D: Signature(("input",), {"kernel_size": None} | _WINDOW),
    Op.MEAN: Signature(("input",), _REDUCTION),
    Op.SUM: Signature(("input",), _REDUCTION),
    Op.REDUCE_MAX: Signature(("input",), _REDUCTION),
    Op.REDUCE_MIN: Signature(("input",), _REDUCTION),
    # int64 indices; the first of equal values
    Op.ARGMAX: Signature(("input",), {"axis": None, "keepdim": False}, DType.INT64),
    Op.ARGMIN: Signature(("input",), {"axis": None, "keepdim": False}, DType.INT64),
    Op.CUMSUM: Signature(("input",), {"axis": None}),
    # the `count` largest along `axis`, in order; the two are one op of torch and of the files
    Op.TOPK_VALUES: Signature(("input",), {"count": None, "axis": None}),
    Op.TOPK_INDICES: Signature(("input",), {"count": None, "axis": None}, DType.INT64),
    Op.RESHAPE: Signature(("input",), {"shape": None}),
    Op.PERMUTE: Signature(("input",), {"axes": None}),
    Op.CONCAT: Signature(("inputs*",), {"axis": None}),
    # amounts (before axis 0, ..., before axis n-1, after axis 0, ..., after axis n-1); mode constant, reflect (the edge
    # once) or replicate
    Op.PAD: Signature(("input",), {"amounts": None, "value": 0.0, "mode": "constant"}),
    # axes, starts, stops and steps are parallel; steps are positive
    Op.SLICE: Signature(("input",), {"axes": None, "starts": None, "stops": None, "steps": None}),
    # axes of size 1 repeated, new ones put in front, as numpy broadcasts
    Op.EXPAND: Signature(("input",), {"shape": None}),
    # whole slices along `axis`, whose place the axes of `indices` take: embeddings, selections
    Op.GATHER: Signature(("input", "indices"), {"axis": None}),
    # result[i, j] = input[i, indices[i, j]] for axis 1: torch.gather
    Op.GATHER_ELEMENTS: Signature(("input", "indices"), {"axis": None}),
    # size (height, width); mode nearest or bilinear; nearest reads floor(i * in / out)
    Op.RESIZE: Signature(("input",), {"size": None, "mode": None, "align_corners": False}),
    # (N, C * b * b, H, W) <-> (N, C, H * b, W * b); channel `(c, i, j)` where channels_first (torch), else `(i, j, c)`
    Op.DEPTH_TO_SPACE: Signature(("input",), _BLOCKS),
    Op.SPACE_TO_DEPTH: Signature(("input",), _BLOCKS),
}

WEIGHTED = frozenset({Op.CONV2D, Op.DEPTHWISE_CONV2D, Op.CONV_TRANSPOSE2D, Op.LINEAR})
"""Ops whose second input is a weight and whose third, if any, is a bias; output channels are the weight's axis 0."""

RECURRENT = frozenset({Op.LSTM, Op.GRU, Op.RNN})
"""Ops that go through a sequence step by step."""

GATES = {Op.LSTM: 4, Op.GRU: 3, Op.RNN: 1}
"""How many rows for each hidden channel the weights of a recurrent op have."""


def weight_inputs(op: Op) -> range:
    """Positions of the inputs that are weights, output channels along axis 0."""
    return range(1, 3) if op in RECURRENT else range(1, 2) if op in WEIGHTED else range(0)
