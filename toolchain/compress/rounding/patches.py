"""A weighted op as matrix products: `y = W p` for patches p of its input, so that one algorithm rounds every kind of
layer.

The weight becomes `(G, O, K)`: G groups that share no input, O output channels a group, K inputs of each; the patches
of an activation are `(G, K, n)`, one column for every place of the result:

* linear: rows of the input; convolution: unfolded windows; depthwise: one group a channel;
* transposed convolution: the convolution of the input, spread by its stride, with the mirrored kernel.

A group of more than `LONGEST` inputs is cut into parts that are treated as groups, which leaves their cross moments
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.graph import Graph, Node, Op

LONGEST = 2400
"""Inputs of one group whose second moments are kept together: twice 2400^2 float64 values are 92 MB."""

_CHUNK_ELEMENTS = 1 << 23


@dataclass(frozen=True)
class Product:
    """How a node's weight and input are laid out as matrices; `parts` of all groups belong to one result."""

    node: Node
    shape: tuple[int, ...]
    input_groups: int
    groups: int
    parts: int
    apart: bool = False

    @classmethod
    def of(cls, graph: Graph, node: Node, *, apart: bool = False) -> Product:
        """`apart` makes a group of every output channel: G is C_out then, patches keep the groups of the input."""
        shape = graph.types[node.inputs[1]].shape
        if node.op is Op.DEPTHWISE_CONV2D:
            groups = graph.types[node.inputs[0]].shape[1]
        else:
            groups = int(node.attributes.get("groups", 1))  # type: ignore[arg-type]
        return cls(node, shape, groups, shape[0] if apart else groups, -(-prod(shape[1:]) // LONGEST), apart)

    @property
    def columns(self) -> int:
        """K, the inputs of one part; the last part of several may be filled up with zeros."""
        return -(-prod(self.shape[1:]) // self.parts)

    def matrix(self, weight: Tensor) -> Tensor:
        """`(G parts, O, K)` of a weight, or of anything of its shape."""
        if self.node.op is Op.CONV_TRANSPOSE2D:
            weight = weight.flip((2, 3))
        matrix = weight.reshape(self.groups, self.shape[0] // self.groups, -1)
        return self._cut(matrix.transpose(1, 2)).transpose(1, 2)

    def weight(self, matrix: Tensor) -> Tensor:
        """The weight whose matrix this is."""
        outputs = self.shape[0] // self.groups
        whole = matrix.reshape(self.groups, self.parts, outputs, self.columns).transpose(1, 2)
        weight = whole.reshape(self.groups, outputs, -1)[..., : prod(self.shape[1:])].reshape(self.shape)
        return weight.flip((2, 3)) if self.node.op is Op.CONV_TRANSPOSE2D else weight

    def per_group(self, values: np.ndarray) -> Tensor:
        """`(G parts, O)` of one value an output channel, or of one for all."""
        outputs = self.shape[0] // self.groups
        spread = np.broadcast_to(np.asarray(values, np.float64), self.shape[:1]).reshape(self.groups, 1, outputs)
        return torch.from_numpy(np.repeat(spread, self.parts, 1).reshape(-1, outputs))

    def per_output(self, values: Tensor) -> Tensor:
        """`(C_out,)` of `(G parts, O)`: the sum over the parts of each result."""
        return values.reshape(self.groups, self.parts, -1).sum(1).reshape(-1)

    def patches(self, *tensors: Tensor, rows: int, generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        """Chunks of `(G parts, K, n)` of each tensor, at the same places. Where the result has more than `rows` places,
        a strip of it that holds about so many, begun at random."""
        where = float(torch.rand((), generator=generator))
        tensors = tuple(self._strip(tensor, rows, where) for tensor in tensors)
        unfolded = tensors[0].numel() * (1 if self.node.op is Op.LINEAR else prod(self.shape[2:]))
        samples = max(_CHUNK_ELEMENTS * len(tensors[0]) // max(unfolded, 1), 1)
        for start in range(0, len(tensors[0]), samples):
            yield tuple(self._cut(self._unfold(tensor[start : start + samples])) for tensor in tensors)

    def _strip(self, x: Tensor, rows: int, where: float) -> Tensor:
        """What a strip of the result is computed from: linear rows, or an image, padded and spread, cut along its
        longer side."""
        if self.node.op is Op.LINEAR:
            x = x.reshape(-1, x.shape[-1])
            begin = int(where * max(len(x) - rows, 0))
            return x[begin : begin + rows]
        if self.node.op is Op.CONV_TRANSPOSE2D:
            x = self._spread(x)
        elif any(self.node["padding"]):
            top, left, bottom, right = self.node["padding"]
            x = F.pad(x, (left, right, top, bottom))
        reaches = [d * (k - 1) + 1 for d, k in zip(self.node["dilation"], self.shape[2:], strict=True)]
        sizes = [(x.shape[2 + i] - reaches[i]) // self._stride[i] + 1 for i in (0, 1)]
        axis = 0 if sizes[0] >= sizes[1] else 1
        wanted = min(-(-rows // (len(x) * sizes[1 - axis])), sizes[axis])
        begin = int(where * (sizes[axis] - wanted + 1)) * self._stride[axis]
        return x.narrow(2 + axis, begin, (wanted - 1) * self._stride[axis] + reaches[axis])

    @property
    def _stride(self) -> tuple[int, int]:
        stride: tuple[int, int] = self.node["stride"]
        return (1, 1) if self.node.op is Op.CONV_TRANSPOSE2D else stride

    def _unfold(self, x: Tensor) -> Tensor:
        """`(G, K, n)` of what `_strip` gives."""
        if self.node.op is Op.LINEAR:
            return x.T[None]
        if prod(self.shape[2:]) == 1:
            windows = x[:, :, :: self._stride[0], :: self._stride[1]].flatten(2)
        else:
            windows = F.unfold(x, self.shape[2:], self.node["dilation"], 0, self._stride)
        windows = windows.reshape(len(x), self.input_groups, -1, windows.shape[-1])
        return windows.permute(1, 2, 0, 3).reshape(*windows.shape[1:3], -1)

    def _spread(self, x: Tensor) -> Tensor:
        """The input with zeros between its elements and around them: what a mirrored kernel slides over."""
        (down, across), extra = self.node["stride"], self.node["output_padding"]
        reach = [d * (k - 1) for d, k in zip(self.node["dilation"], self.shape[2:], strict=True)]
        height, width = (x.shape[2] - 1) * down + 1, (x.shape[3] - 1) * across + 1
        wide = x.new_zeros(*x.shape[:2], height, width)
        wide[:, :, ::down, ::across] = x
        top, left, bottom, right = self.node["padding"]
        sides = (reach[1] - left, reach[1] - right + extra[1], reach[0] - top, reach[0] - bottom + extra[0])
        return F.pad(wide, sides)

    def _cut(self, matrix: Tensor) -> Tensor:
        """Many inputs in parts: `(G, K, n)` -> `(G parts, K / parts, n)`."""
        if self.parts == 1:
            return matrix
        groups, rows, count = matrix.shape
        filled = F.pad(matrix, (0, 0, 0, self.parts * self.columns - rows))
        return filled.reshape(groups * self.parts, self.columns, count)
