"""Torch evaluation facet: one function an op, from the node and its input tensors to its result.

Differentiable, for any floating type: float32 for references and training, float64 for the exact integer meaning. The
batch may differ from the one the graph was traced with: only axis 0 of a reshape is affected, and follows its input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.engine.recurrent import gru, lstm, rnn
from toolchain.graph import Node, Op

Evaluation: TypeAlias = Callable[..., Tensor]


def evaluate(node: Node, inputs: list[Tensor]) -> Tensor:
    """Result of `node`, its fused activation included."""
    return ACTIVATE[str(node.attributes.get("activation", "none"))](EVALUATIONS[node.op](node, *inputs))


ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "relu6": lambda x: torch.clamp(x, 0.0, 6.0),
}


def _split_padding(node: Node, x: Tensor, value: float = 0.0) -> tuple[Tensor, tuple[int, int]]:
    """Symmetric padding is left to the op; the rest of an asymmetric one is put in front of it."""
    top, left, bottom, right = node["padding"]
    even = (min(top, bottom), min(left, right))
    extra = (left - even[1], right - even[1], top - even[0], bottom - even[0])
    return (F.pad(x, extra, value=value) if any(extra) else x), even


def _conv2d(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, padding = _split_padding(node, x)
    return F.conv2d(x, weight, bias, node["stride"], padding, node["dilation"], node["groups"])


def _depthwise_conv2d(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, padding = _split_padding(node, x)
    return F.conv2d(x, weight, bias, node["stride"], padding, node["dilation"], x.shape[1])


def _batch_norm(node: Node, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=node["epsilon"])


def _max_pool2d(node: Node, x: Tensor) -> Tensor:
    x, padding = _split_padding(node, x, value=-torch.inf)
    if any(2 * pad > size for pad, size in zip(padding, node["kernel_size"], strict=True)):
        x, padding = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=-torch.inf), (0, 0)
    return F.max_pool2d(x, node["kernel_size"], node["stride"], padding)


def _avg_pool2d(node: Node, x: Tensor) -> Tensor:
    if not any(node["padding"]):
        return F.avg_pool2d(x, node["kernel_size"], node["stride"])
    top, left, bottom, right = node["padding"]
    # sums, divided once: an average of integers that is a tie stays one
    window = {"kernel_size": node["kernel_size"], "stride": node["stride"], "divisor_override": 1}
    total = F.avg_pool2d(F.pad(x, (left, right, top, bottom)), **window)
    inside = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), (left, right, top, bottom)), **window)
    return total / inside


def _conv_transpose2d(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Whole, then cut: torch takes no asymmetric padding."""
    groups, extra = node["groups"], node["output_padding"]
    features, fan_in, *kernel = weight.shape
    # torch has (C_in, C_out / groups, kH, kW)
    grouped = weight.reshape(groups, features // groups, fan_in, *kernel).transpose(1, 2)
    theirs = grouped.reshape(groups * fan_in, features // groups, *kernel)
    whole = F.conv_transpose2d(x, theirs, None, node["stride"], 0, 0, groups, node["dilation"])
    whole = F.pad(whole, (0, extra[1], 0, extra[0]))
    top, left, bottom, right = node["padding"]
    kept = whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]
    return kept if bias is None else kept + bias.reshape(-1, 1, 1)


def _layer_norm(node: Node, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, [x.shape[axis] for axis in node["axes"]], weight, bias, node["epsilon"])


def _rms_norm(node: Node, x: Tensor, weight: Tensor | None = None) -> Tensor:
    scaled = x * torch.rsqrt((x * x).mean(node["axes"], keepdim=True) + node["epsilon"])
    return scaled if weight is None else scaled * weight


def _expand(node: Node, x: Tensor) -> Tensor:
    shape = node["shape"]
    follows = x.dim() == len(shape) and bool(shape) and (x.shape[0] != 1 or shape[0] == 1)
    return x.expand(-1 if follows else shape[0], *shape[1:]) if shape else x


def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node["axis"]
    taken = torch.index_select(x, axis, indices.reshape(-1).long())
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _same_batch(axis: int, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Constants, made for one sample, once for each sample of a larger batch."""
    batch = max(x.shape[0] for x in tensors) if axis else 1
    return [x.expand(batch, *x.shape[1:]) if x.shape[0] == 1 < batch else x for x in tensors]


def _concat(node: Node, *inputs: Tensor) -> Tensor:
    return torch.cat(_same_batch(node["axis"], inputs), node["axis"])


def _gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    x, indices = _same_batch(node["axis"], (x, indices))
    return torch.gather(x, node["axis"], indices.long())


def _resize(node: Node, x: Tensor) -> Tensor:
    if node["mode"] == "nearest":
        return F.interpolate(x, node["size"], mode="nearest")
    return F.interpolate(x, node["size"], mode="bilinear", align_corners=node["align_corners"])


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    block = node["block"]
    if not node["channels_first"]:
        x = torch.unflatten(x, 1, (block * block, -1)).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(x, block)


def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    x = F.pixel_unshuffle(x, node["block"])
    if not node["channels_first"]:
        x = torch.unflatten(x, 1, (-1, node["block"] ** 2)).transpose(1, 2).flatten(1, 2)
    return x


def _div(node: Node, left: Tensor, right: Tensor) -> Tensor:
    return torch.div(left, right, rounding_mode=None if left.is_floating_point() else "trunc")


def _cast(node: Node, x: Tensor) -> Tensor:
    dtype: torch.dtype = getattr(torch, node["dtype"])
    return x if dtype.is_floating_point and x.is_floating_point() else x.to(dtype)


def _argument(best: Callable[..., Tensor]) -> Evaluation:
    return lambda node, x: best(x, node["axis"], keepdim=node["keepdim"])


def _reduction(reduce: Callable[..., Tensor]) -> Evaluation:
    return lambda node, x: reduce(x, node["axes"], keepdim=node["keepdim"])


def _unary(function: Callable[[Tensor], Tensor]) -> Evaluation:
    return lambda node, x: function(x)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Evaluation:
    return lambda node, left, right: function(left, right)


def _reshape(node: Node, x: Tensor) -> Tensor:
    return x.reshape(-1, *node["shape"][1:]) if node["shape"] else x.reshape(())


def _pad(node: Node, x: Tensor) -> Tensor:
    rank, amounts = x.dim(), node["amounts"]
    if node["mode"] != "constant":
        return _pad_from_inside(node, x)
    pairs = [side for axis in reversed(range(rank)) for side in (amounts[axis], amounts[rank + axis])]
    return F.pad(x, pairs, value=node["value"])


def _pad_from_inside(node: Node, x: Tensor) -> Tensor:
    """Mirrored at the edge, which is not repeated, or the edge itself, axis by axis."""
    rank, amounts = x.dim(), node["amounts"]
    for axis, size in enumerate(x.shape):
        before, after = amounts[axis], amounts[rank + axis]
        if before or after:
            places = torch.arange(-before, size + after, device=x.device)
            if node["mode"] == "reflect":
                places = (size - 1) - ((size - 1) - places.abs()).abs()
            x = x.index_select(axis, places.clamp(0, size - 1))
    return x


def _slice(node: Node, x: Tensor) -> Tensor:
    index = [slice(None)] * x.dim()
    for axis, start, stop, step in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


EVALUATIONS: dict[Op, Evaluation] = {
    Op.CONV2D: _conv2d,
    Op.DEPTHWISE_CONV2D: _depthwise_conv2d,
    Op.CONV_TRANSPOSE2D: _conv_transpose2d,
    Op.LINEAR: lambda node, x, weight, bias=None: F.linear(x, weight, bias),
    Op.LSTM: lstm,
    Op.GRU: gru,
    Op.RNN: rnn,
    Op.BATCH_NORM: _batch_norm,
    Op.LAYER_NORM: _layer_norm,
    Op.RMS_NORM: _rms_norm,
    Op.RELU: _unary(torch.relu),
    Op.RELU6: lambda node, x: torch.clamp(x, 0.0, 6.0),
    Op.LEAKY_RELU: lambda node, x: F.leaky_relu(x, node["slope"]),
    Op.PRELU: lambda node, x, slope: torch.where(x >= 0, x, x * slope),
    Op.ELU: _unary(F.elu),
    Op.GELU: lambda node, x: F.gelu(x, approximate="tanh" if node["approximate"] else "none"),
    Op.SIGMOID: _unary(torch.sigmoid),
    Op.TANH: _unary(torch.tanh),
    Op.HARDSWISH: _unary(F.hardswish),
    Op.SOFTPLUS: _unary(F.softplus),
    Op.MISH: _unary(F.mish),
    Op.CLAMP: lambda node, x: torch.clamp(x, node["low"], node["high"]).to(x.dtype),
    Op.SOFTMAX: lambda node, x: torch.softmax(x, node["axis"]),
    Op.LOG_SOFTMAX: lambda node, x: torch.log_softmax(x, node["axis"]),
    Op.EXP: _unary(torch.exp),
    Op.LOG: _unary(torch.log),
    Op.SQRT: _unary(torch.sqrt),
    Op.RSQRT: _unary(torch.rsqrt),
    Op.ABS: _unary(torch.abs),
    Op.NEG: _unary(torch.neg),
    Op.SIN: _unary(torch.sin),
    Op.COS: _unary(torch.cos),
    Op.FLOOR: _unary(torch.floor),
    Op.CEIL: _unary(torch.ceil),
    Op.ROUND: _unary(torch.round),
    Op.SIGN: _unary(torch.sign),
    Op.ERF: _unary(torch.erf),
    Op.CAST: _cast,
    Op.REQUANTIZE: lambda node, x: x,
    Op.ADD: _binary(torch.add),
    Op.SUB: _binary(torch.sub),
    Op.MUL: _binary(torch.mul),
    Op.DIV: _div,
    Op.POW: _binary(torch.pow),
    Op.MINIMUM: _binary(torch.minimum),
    Op.MAXIMUM: _binary(torch.maximum),
    Op.MATMUL: _binary(torch.matmul),
    Op.EQUAL: _binary(torch.eq),
    Op.NOT_EQUAL: _binary(torch.ne),
    Op.LESS: _binary(torch.lt),
    Op.LESS_EQUAL: _binary(torch.le),
    Op.GREATER: _binary(torch.gt),
    Op.GREATER_EQUAL: _binary(torch.ge),
    Op.LOGICAL_AND: _binary(torch.logical_and),
    Op.LOGICAL_OR: _binary(torch.logical_or),
    Op.LOGICAL_NOT: _unary(torch.logical_not),
    Op.WHERE: lambda node, condition, left, right: torch.where(condition, left, right),
    Op.MAX_POOL2D: _max_pool2d,
    Op.AVG_POOL2D: _avg_pool2d,
    Op.MEAN: _reduction(torch.mean),
    Op.SUM: _reduction(torch.sum),
    Op.REDUCE_MAX: _reduction(torch.amax),
    Op.REDUCE_MIN: _reduction(torch.amin),
    Op.ARGMAX: _argument(torch.argmax),
    Op.ARGMIN: _argument(torch.argmin),
    Op.CUMSUM: lambda node, x: torch.cumsum(x, node["axis"]),
    Op.TOPK_VALUES: lambda node, x: torch.topk(x, node["count"], node["axis"])[0],
    Op.TOPK_INDICES: lambda node, x: torch.topk(x, node["count"], node["axis"])[1],
    Op.RESHAPE: _reshape,
    Op.PERMUTE: lambda node, x: x.permute(node["axes"]),
    Op.CONCAT: _concat,
    Op.PAD: _pad,
    Op.SLICE: _slice,
    Op.EXPAND: _expand,
    Op.GATHER: _gather,
    Op.GATHER_ELEMENTS: _gather_elements,
    Op.RESIZE: _resize,
    Op.DEPTH_TO_SPACE: _depth_to_space,
    Op.SPACE_TO_DEPTH: _space_to_depth,
}
