"""Resizes, and channels that become pixels, as TFLite operators.

DEPTH_TO_SPACE and SPACE_TO_DEPTH have the channels of a pixel last, `(i, j, c)`. For channels first, which folding
could not undo, a GATHER puts the channels in order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.graph import Node, Op
from toolchain.graph.blocks import pixel_order


def lower_resize(emitter: Emitter, node: Node) -> None:
    """RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR."""
    (source,) = emitter.inputs(node)
    result = emitter.result(node)
    inputs = [source, emitter.vector(f"{node.output}/size", node["size"])]
    if node["mode"] == "nearest":
        options = schema.ResizeNearestNeighborOptionsT(alignCorners=False, halfPixelCenters=False)
        emitter.emit(Builtin.RESIZE_NEAREST_NEIGHBOR, inputs, result, options)
    else:
        corners = node["align_corners"]
        options = schema.ResizeBilinearOptionsT(alignCorners=corners, halfPixelCenters=not corners)
        emitter.emit(Builtin.RESIZE_BILINEAR, inputs, result, options)


def lower_depth_to_space(emitter: Emitter, node: Node) -> None:
    """DEPTH_TO_SPACE."""
    (source,) = emitter.inputs(node)
    block = node["block"]
    if node["channels_first"]:
        order = pixel_order(source.shape[3] // block**2, block)
        target = emitter.temporary(f"{node.output}/ordered", source.shape, source)
        source = gather(emitter, source, 3, order.tolist(), target)
    emitter.emit(Builtin.DEPTH_TO_SPACE, [source], emitter.result(node), schema.DepthToSpaceOptionsT(blockSize=block))


def lower_space_to_depth(emitter: Emitter, node: Node) -> None:
    """SPACE_TO_DEPTH."""
    (source,) = emitter.inputs(node)
    block, result = node["block"], emitter.result(node)
    options = schema.SpaceToDepthOptionsT(blockSize=block)
    if not node["channels_first"]:
        emitter.emit(Builtin.SPACE_TO_DEPTH, [source], result, options)
        return
    packed = emitter.temporary(f"{node.output}/packed", result.shape, source)
    emitter.emit(Builtin.SPACE_TO_DEPTH, [source], packed, options)
    gather(emitter, packed, 3, np.argsort(pixel_order(source.shape[3], block)).tolist(), result)


def gather(emitter: Emitter, source: Operand, axis: int, places: Sequence[int], target: Operand) -> Operand:
    """The elements at constant `places` along a physical axis."""
    inputs = [source, emitter.vector(f"{target.name}/places", places)]
    return emitter.emit(Builtin.GATHER, inputs, target, schema.GatherOptionsT(axis=axis))


RESIZING: dict[Op, Lowering] = {
    Op.RESIZE: lower_resize,
    Op.DEPTH_TO_SPACE: lower_depth_to_space,
    Op.SPACE_TO_DEPTH: lower_space_to_depth,
}
