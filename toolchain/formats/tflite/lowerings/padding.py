"""Pads as TFLite operators: PAD and PADV2 with a value, MIRROR_PAD, and GATHERs that repeat an edge."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.lowerings.moves import take
from toolchain.formats.tflite.lowerings.resizing import gather
from toolchain.formats.tflite.windows import pad
from toolchain.graph import Node, Op
from toolchain.quantization import quantize

Around = list[tuple[int, int]]
"""(before, after) for every physical axis."""


def lower_pad(emitter: Emitter, node: Node) -> None:
    """PAD, or PADV2 where the value is not zero; negative amounts are cut off before."""
    (source,) = emitter.inputs(node)
    rank, amounts = len(source.shape), node["amounts"]
    layout = emitter.placement(node).wanted[0]
    assert layout is not None
    around = [(amounts[axis], amounts[rank + axis]) for axis in layout.order]
    if node["mode"] == "constant":
        _pad_with_value(emitter, node, source, around)
    elif node["mode"] == "reflect":
        _mirror(emitter, node, source, around, schema.MirrorPadMode.REFLECT)
    elif max(amounts) <= 1:  # one element mirrored with its edge is the edge
        _mirror(emitter, node, source, around, schema.MirrorPadMode.SYMMETRIC)
    else:
        _repeat_edges(emitter, node, source, around)


def _pad_with_value(emitter: Emitter, node: Node, source: Operand, around: Around) -> None:
    if min(map(min, around)) < 0:
        kept = [range(max(-b, 0), size - max(-a, 0)) for size, (b, a) in zip(source.shape, around, strict=True)]
        target = emitter.temporary(f"{node.output}/cut", [len(k) for k in kept], source)
        source = take(emitter, source, kept, target)
        around = [(max(before, 0), max(after, 0)) for before, after in around]
    value = np.asarray(node["value"], source.dtype.numpy if source.params is None else np.float32)
    if source.params is not None:
        value = quantize(value, source.params)
    pad(emitter, source, around, emitter.result(node), None if node["value"] == 0 else value)


def _mirror(emitter: Emitter, node: Node, source: Operand, around: Around, mode: int) -> None:
    inputs = [source, emitter.vector(f"{node.output}/amounts", around)]
    emitter.emit(Builtin.MIRROR_PAD, inputs, emitter.result(node), schema.MirrorPadOptionsT(mode=mode))


def _repeat_edges(emitter: Emitter, node: Node, source: Operand, around: Around) -> None:
    padded = [axis for axis, amounts in enumerate(around) if any(amounts)]
    for axis in padded:
        before, after = around[axis]
        places = np.clip(np.arange(-before, source.shape[axis] + after), 0, source.shape[axis] - 1)
        shape = (*source.shape[:axis], len(places), *source.shape[axis + 1 :])
        last = axis == padded[-1]
        target = emitter.result(node) if last else emitter.temporary(f"{node.output}/padded", shape, source)
        source = gather(emitter, source, axis, places.tolist(), target)


PADDING: dict[Op, Lowering] = {Op.PAD: lower_pad}
