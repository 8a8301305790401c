"""Windows over an image, and how explicit padding becomes SAME, VALID or a PAD.

SAME (TensorFlow's) pads one axis by `total = max((ceil(in / s) - 1) s + d (k - 1) + 1 - in, 0)`, `total // 2`
of it before; VALID pads nothing. Explicit padding that equals one of them on both axes is folded into it, any
other becomes a PAD of what the windows reach, followed by VALID. Neither pool counts what SAME pads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.graph import Node, Op


@dataclass(frozen=True)
class Window:
    """How windows move along one axis: explicit padding `before` and `after`, `count` positions."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    count: int
    dilation: int = 1

    @property
    def extent(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    @property
    def reached_after(self) -> int:
        """As much of the padding after the axis as any window reaches."""
        return max((self.count - 1) * self.stride + self.extent - self.size - self.before, 0)

    @property
    def is_whole(self) -> bool:
        """Whether one window sees the whole axis and nothing else."""
        return self.count == 1 and self.before == 0 and self.kernel == self.size

    @property
    def is_valid(self) -> bool:
        return self.before == 0 == self.reached_after

    @property
    def is_same(self) -> bool:
        positions = -(-self.size // self.stride)
        total = max((positions - 1) * self.stride + self.extent - self.size, 0)
        return self.count == positions and self.before == total // 2


def node_windows(emitter: Emitter, node: Node) -> tuple[Window, Window]:
    """Along the height and along the width."""
    sizes, counts = emitter.graph.types[node.inputs[0]].shape[2:], emitter.graph.types[node.output].shape[2:]
    kernel: Any = node.attributes.get("kernel_size") or emitter.graph.types[node.inputs[1]].shape[2:]
    dilation: Any = node.attributes.get("dilation", (1, 1))
    top, left, bottom, right = node["padding"]
    return (
        Window(sizes[0], kernel[0], node["stride"][0], top, bottom, counts[0], dilation[0]),
        Window(sizes[1], kernel[1], node["stride"][1], left, right, counts[1], dilation[1]),
    )


def exact_padding(windows: tuple[Window, Window]) -> int | None:
    """VALID or SAME where one of them pads both axes exactly so."""
    if all(window.is_valid for window in windows):
        return int(schema.Padding.VALID)
    if all(window.is_same for window in windows):
        return int(schema.Padding.SAME)
    return None


def padded_input(emitter: Emitter, node: Node, windows: tuple[Window, Window]) -> tuple[Operand, int]:
    """The node's input, padded where neither SAME nor VALID says the same, and the padding to name."""
    (source, *_) = emitter.inputs(node)
    exact = exact_padding(windows)
    # kernels channels first take the whole padding, as XNNPACK reads it from a PAD, and from SAME at stride 1 alone
    is_whole = node.output in emitter.numbers.sparse.members and node["stride"] != (1, 1)
    if exact is not None and not is_whole:
        return source, exact
    around = [(0, 0), *((w.before, w.after if is_whole else w.reached_after) for w in windows), (0, 0)]
    shape = [before + size + after for size, (before, after) in zip(source.shape, around, strict=True)]
    target = emitter.temporary(f"{node.output}/padded", shape, source)
    lowest = node.op is Op.MAX_POOL2D and not emitter.is_non_negative(node.inputs[0])
    return pad(emitter, source, around, target, _lowest(source) if lowest else None), schema.Padding.VALID


def pad(
    emitter: Emitter,
    source: Operand,
    around: Sequence[tuple[int, int]],
    target: Operand,
    value: np.ndarray | None = None,
) -> Operand:
    """`source` padded by (before, after) an axis: with zeros (in int8 the zero point), or with `value ()`."""
    amounts = emitter.vector(f"{target.name}/amounts", around)
    if value is None:
        return emitter.emit(Builtin.PAD, [source, amounts], target, schema.PadOptionsT())
    fill = emitter.add_constant(f"{target.name}/value", value, source.params)
    return emitter.emit(Builtin.PADV2, [source, amounts, fill], target, schema.PadV2OptionsT())


def _lowest(source: Operand) -> np.ndarray:
    dtype = source.dtype.numpy
    return np.asarray(np.finfo(dtype).min if source.dtype.is_float else np.iinfo(dtype).min, dtype)
