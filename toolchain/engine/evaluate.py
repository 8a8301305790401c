"""Torch evaluation facet: one function an op, from the node and its input tensors to its result.

Differentiable, for any floating type: float32 for references and training, float64 for the exact integer meaning. The
batch may differ from the one the graph was traced with: only axis 0 of a reshape is affected, and follows its input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

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


def _reshape(node: Node, x: Tensor) -> Tensor:
    return x.reshape(-1, *node["shape"][1:]) if node["shape"] else x.reshape(())


def _pad(node: Node, x: Tensor) -> Tensor:
    rank, amounts = x.dim(), node["amounts"]
    pairs = [side for axis in reversed(range(rank)) for side in (amounts[axis], amounts[rank + axis])]
    return F.pad(x, pairs, value=node["value"])


def _slice(node: Node, x: Tensor) -> Tensor:
    index = [slice(None)] * x.dim()
    for axis, start, stop, step in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


EVALUATIONS: dict[Op, Evaluation] = {
    Op.CONV2D: _conv2d,
    Op.DEPTHWISE_CONV2D: _depthwise_conv2d,
    Op.LINEAR: lambda node, x, weight, bias=None: F.linear(x, weight, bias),
    Op.BATCH_NORM: _batch_norm,
    Op.RELU: lambda node, x: torch.relu(x),
    Op.RELU6: lambda node, x: torch.clamp(x, 0.0, 6.0),
    Op.LEAKY_RELU: lambda node, x: F.leaky_relu(x, node["slope"]),
    Op.SIGMOID: lambda node, x: torch.sigmoid(x),
    Op.TANH: lambda node, x: torch.tanh(x),
    Op.HARDSWISH: lambda node, x: F.hardswish(x),
    Op.SOFTMAX: lambda node, x: torch.softmax(x, node["axis"]),
    Op.ADD: lambda node, left, right: left + right,
    Op.SUB: lambda node, left, right: left - right,
    Op.MUL: lambda node, left, right: left * right,
    Op.MAX_POOL2D: _max_pool2d,
    Op.AVG_POOL2D: _avg_pool2d,
    Op.MEAN: lambda node, x: x.mean(node["axes"], keepdim=node["keepdim"]),
    Op.RESHAPE: _reshape,
    Op.PERMUTE: lambda node, x: x.permute(node["axes"]),
    Op.CONCAT: lambda node, *inputs: torch.cat(inputs, node["axis"]),
    Op.PAD: _pad,
    Op.SLICE: _slice,
}
