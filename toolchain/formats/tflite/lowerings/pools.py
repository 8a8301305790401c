"""Pools as TFLite operators: MAX_POOL_2D, AVERAGE_POOL_2D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.lowerings.moves import average, concatenate, take
from toolchain.formats.tflite.windows import Window, exact_padding, node_windows, padded_input
from toolchain.graph import Node, Op


def _max_pool2d(emitter: Emitter, node: Node) -> None:
    """MAX_POOL_2D."""
    source, padding = padded_input(emitter, node, node_windows(emitter, node))
    emitter.emit(Builtin.MAX_POOL_2D, [source], emitter.result(node), _options(node, padding, node["kernel_size"]))


def _avg_pool2d(emitter: Emitter, node: Node) -> None:
    """AVERAGE_POOL_2D; padding that is neither SAME nor VALID is left out by pooling the rim apart."""
    windows = node_windows(emitter, node)
    padding = exact_padding(windows)
    if all(window.is_whole for window in windows):
        # XNNPACK has an int8 kernel for MEAN but none for AVERAGE_POOL_2D
        average(emitter, emitter.inputs(node)[0], [1, 2], emitter.result(node), keep_axes=True)
    elif padding is None:
        _pool_in_pieces(emitter, node, windows)
    else:
        options = _options(node, padding, node["kernel_size"])
        emitter.emit(Builtin.AVERAGE_POOL_2D, emitter.inputs(node), emitter.result(node), options)


def _options(node: Node, padding: int, kernel: Sequence[int]) -> Any:
    return schema.Pool2DOptionsT(
        padding=padding,
        strideH=node["stride"][0],
        strideW=node["stride"][1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
    )


@dataclass(frozen=True)
class _Piece:
    """`count` positions in a row whose windows see `kernel` elements each, the first from `start` on."""

    start: int
    kernel: int
    stride: int
    count: int = 1

    @property
    def taken(self) -> range:
        return range(self.start, self.start + (self.count - 1) * self.stride + self.kernel)


def _pieces(window: Window) -> list[_Piece]:
    pieces: list[_Piece] = []
    for position in range(window.count):
        first = position * window.stride - window.before
        start, stop = max(first, 0), min(first + window.kernel, window.size)
        last = pieces[-1] if pieces else None
        if last and last.kernel == stop - start and last.start + last.count * last.stride == start:
            pieces[-1] = replace(last, count=last.count + 1)
        else:
            pieces.append(_Piece(start, stop - start, window.stride))
    return pieces


def _pool_in_pieces(emitter: Emitter, node: Node, windows: tuple[Window, Window]) -> None:
    rows, columns = (_pieces(window) for window in windows)
    bands = []
    for row in rows:
        pooled = [_pool_piece(emitter, node, row, column) for column in columns]
        shape = (*pooled[0].shape[:2], windows[1].count, pooled[0].shape[3])
        whole = len(rows) == 1
        band = emitter.result(node) if whole else emitter.temporary(f"{node.output}/rows", shape, pooled[0])
        bands.append(concatenate(emitter, pooled, 2, band))
    if len(rows) > 1:
        concatenate(emitter, bands, 1, emitter.result(node))


def _pool_piece(emitter: Emitter, node: Node, row: _Piece, column: _Piece) -> Operand:
    (source,) = emitter.inputs(node)
    batch, *_, channels = source.shape
    taken = [range(batch), row.taken, column.taken, range(channels)]
    seen = emitter.temporary(f"{node.output}/seen", [len(r) for r in taken], source)
    take(emitter, source, taken, seen)
    target = emitter.temporary(f"{node.output}/piece", (batch, row.count, column.count, channels), source)
    options = _options(node, schema.Padding.VALID, (row.kernel, column.kernel))
    return emitter.emit(Builtin.AVERAGE_POOL_2D, [seen], target, options)


POOLS: dict[Op, Lowering] = {
    Op.MAX_POOL2D: _max_pool2d,
    Op.AVG_POOL2D: _avg_pool2d,
}
