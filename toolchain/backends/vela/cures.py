"""What to write in a model instead of an operator that the NPU leaves to the CPU.

The device profile's own advice on the op of the graph comes first; this table is for what only the file has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from toolchain.graph import Graph, Node
from toolchain.profiles import DeviceProfile

_OPERATORS: Final[Mapping[str, str]] = {
    "ABS": "whole numbers on the processor beside the NPU",
    "ARG_MAX": "argmax over at most 127 channels, or on the processor beside the NPU",
    "AVERAGE_POOL_2D": "a pool without padding, with a stride of at most 3",
    "BATCH_MATMUL": "a linear layer with constant weights, a convolution, or 8 bits",
    "BROADCAST_TO": "an operand of size 1 left as it is: add and mul broadcast",
    "CAST": "one element type throughout",
    "CONV_2D": "a stride of at most 3, or no padding and no dilation",
    "DEPTH_TO_SPACE": "conv_transpose2d of stride 2, or resize and a convolution",
    "DEPTHWISE_CONV_2D": "two convolutions in a row, or a pool before one",
    "DEQUANTIZE": "ops behind it that have integer kernels: it begins a part that computes in float",
    "DIV": "a product with the reciprocal where the divisor is constant",
    "FULLY_CONNECTED": "fewer features a layer",
    "GATHER": "slice and concat with fixed places",
    "MAX_POOL_2D": "two pools in a row, or no padding",
    "MEAN": "a mean over height and width of one image, or a 1x1 convolution of equal weights over channels",
    "PAD": "zero padding of the convolution itself",
    "PADV2": "zero padding of the convolution itself",
    "QUANTIZE": "ops before it that have integer kernels: it ends a part that computes in float",
    "REDUCE_MAX": "max_pool2d over the whole image",
    "RESHAPE": "a result of at least one axis",
    "RESIZE_BILINEAR": "a size twice as large, several times in a row, or nearest",
    "RESIZE_NEAREST_NEIGHBOR": "a size 2, 4 or 8 times as large",
    "SELECT_V2": "maximum, minimum or a product with a mask",
    "SOFTMAX": "fewer than 65,536 rows at a time",
    "SPACE_TO_DEPTH": "a convolution with that stride",
    "STRIDED_SLICE": "steps along height and width only; along channels, a 1x1 convolution that picks them",
    "SUM": "mean, whose factor the next layer's weights take in",
    "TRANSPOSE": "channels where convolutions have them, so that nothing is moved",
    "TRANSPOSE_CONV": "a stride of 2, with a kernel of 2 to 4 and the padding that doubles the size",
}
_NOTHING: Final = "ops that the device profile lists, or this part on the processor beside the NPU"


def node_of(graph: Graph, tensor: str) -> Node | None:
    """The node that makes a tensor of the file: names of parts of a node begin with that of its result and a slash."""
    name = tensor
    while name not in graph.producers:
        name, found, _ = name.rpartition("/")
        if not found:
            return None
    return graph.producers[name]


def cure(op: str, why: str, node: Node | None, profile: DeviceProfile) -> str:
    """What to write instead of an operator that stays on the CPU for this reason."""
    if "int64" in why.lower():
        return "whole numbers of 32 bits, made outside the model"
    advised = profile.execution.instead.get(node.op, "") if node is not None else ""
    return advised or _OPERATORS.get(op, _NOTHING)
