"""Transposed convolutions as TRANSPOSE_CONV.

The operator's result is that of SAME or VALID padding and as long as it is told. Where the padding is another, the
whole result is made and what the padding takes is cut off its front. It knows neither groups, each of which becomes an
operator of its own, nor dilation, which is written into the kernel as zeros. The rows of a weight that one group
reads are a constant `weight/rows_a_b`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import ACTIVATIONS, Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.kernels import dilated, rows_of
from toolchain.formats.tflite.layout import CHANNELS_LAST
from toolchain.formats.tflite.lowerings.layers import zero_bias
from toolchain.formats.tflite.lowerings.moves import concatenate, take
from toolchain.graph import Node, Op, unsupported


def _conv_transpose2d(emitter: Emitter, node: Node) -> None:
    """TRANSPOSE_CONV, one a group."""
    (source,) = emitter.inputs(node)
    padding, extent, front = _placing(emitter, node)
    result = emitter.result(node)
    groups, features = node["groups"], result.shape[3]
    whole = (result.shape[0], *extent, features)
    made = result if extent == result.shape[1:3] else emitter.temporary(f"{node.output}/whole", whole, result)
    if groups == 1:
        _convolve(emitter, node, source, made, padding, (0, features))
    else:
        parts = []
        for group in range(groups):
            rows = (group * features // groups, (group + 1) * features // groups)
            part = emitter.temporary(f"{node.output}/part", (*whole[:3], features // groups), made)
            parts.append(_convolve(emitter, node, _channels(emitter, node, source, group), part, padding, rows))
        concatenate(emitter, parts, 3, made)
    if made is not result:
        kept = [range(start, start + size) for start, size in zip((0, *front, 0), result.shape, strict=True)]
        take(emitter, made, kept, result)


def _placing(emitter: Emitter, node: Node) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """SAME or VALID, the extent of the operator's result, and how much of its front is padding."""
    axes = _axes(emitter, node)
    if all(axis.is_same for axis in axes):
        return int(schema.Padding.SAME), (axes[0].wanted, axes[1].wanted), (0, 0)
    if any(axis.extent >= axis.full + axis.stride for axis in axes):
        raise unsupported(node, "TFLite pads no result by as much as the stride", "use a smaller output_padding")
    return int(schema.Padding.VALID), (axes[0].extent, axes[1].extent), (axes[0].before, axes[1].before)


@dataclass(frozen=True)
class _Axis:
    """How a result grows along one axis: `full` without padding, `wanted` with it, `before` of it in front."""

    size: int
    stride: int
    full: int
    wanted: int
    before: int

    @property
    def is_same(self) -> bool:
        return -(-self.wanted // self.stride) == self.size and self.before == max(self.full - self.wanted, 0) // 2

    @property
    def extent(self) -> int:
        """Of the operator's result, which must hold all that the input reaches."""
        return max(self.full, self.before + self.wanted)


def _axes(emitter: Emitter, node: Node) -> list[_Axis]:
    sizes, kernel = (emitter.graph.types[name].shape[2:] for name in node.inputs[:2])
    wanted = emitter.graph.types[node.output].shape[2:]
    found = []
    for i in range(2):
        stride = node["stride"][i]
        full = (sizes[i] - 1) * stride + node["dilation"][i] * (kernel[i] - 1) + 1
        found.append(_Axis(sizes[i], stride, full, wanted[i], node["padding"][i]))
    return found


def _channels(emitter: Emitter, node: Node, source: Operand, group: int) -> Operand:
    count = source.shape[3] // node["groups"]
    taken = [*map(range, source.shape[:3]), range(group * count, (group + 1) * count)]
    target = emitter.temporary(f"{node.output}/channels", [len(t) for t in taken], source)
    return take(emitter, source, taken, target)


def _convolve(
    emitter: Emitter, node: Node, source: Operand, target: Operand, padding: int, rows: tuple[int, int]
) -> Operand:
    options = schema.TransposeConvOptionsT(
        padding=padding,
        strideH=node["stride"][0],
        strideW=node["stride"][1],
        fusedActivationFunction=ACTIVATIONS[node["activation"]],
    )
    _, weight, *bias = node.inputs
    shape = emitter.vector(f"{target.name}/shape", target.shape)
    kernel = _rows(emitter, weight, rows, node["dilation"])
    added = _rows(emitter, bias[0], rows, ()) if bias else _zeros(emitter, node, rows)
    return emitter.emit(Builtin.TRANSPOSE_CONV, [shape, kernel, source, added], target, options)


def _rows(emitter: Emitter, name: str, rows: tuple[int, int], dilation: Sequence[int]) -> Operand:
    """Some output channels of a weight, dilated, or of a bias."""
    params = emitter.numbers.params.get(name)
    values = emitter.numbers.stored(name)
    named = name if rows == (0, len(values)) else f"{name}/rows_{rows[0]}_{rows[1]}"
    chosen = values[slice(*rows)]
    if dilation:
        chosen = CHANNELS_LAST.to_physical(dilated(chosen, dilation))
    return emitter.add_constant(named, chosen, params and rows_of(params, slice(*rows)))


def _zeros(emitter: Emitter, node: Node, rows: tuple[int, int]) -> Operand:
    whole = zero_bias(emitter, node)
    if rows == (0, whole.shape[0]):
        return whole
    params = whole.params and rows_of(whole.params, slice(*rows))
    return emitter.add_constant(f"{node.output}/bias", np.zeros(rows[1] - rows[0], whole.dtype.numpy), params)


TRANSPOSED: dict[Op, Lowering] = {
    Op.CONV_TRANSPOSE2D: _conv_transpose2d,
}
