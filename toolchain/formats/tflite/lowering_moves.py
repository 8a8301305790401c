"""Ops that move, select or average along axes, as TFLite operators; axes are mapped through the layout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.layout import Layout
from toolchain.formats.tflite.windows import pad
from toolchain.graph import Node
from toolchain.quantization import quantize


def lower_reshape(emitter: Emitter, node: Node) -> None:
    """RESHAPE."""
    (source,) = emitter.inputs(node)
    emitter.reshape_into(source, emitter.result(node))


def lower_permute(emitter: Emitter, node: Node) -> None:
    """No operator: the result is the input, its axes named anew, unless both must be tensors of the file."""
    (source,) = emitter.inputs(node)
    if emitter.needs_copy(node):
        emitter.reshape_into(source, emitter.result(node))
    else:
        emitter.bind(node.output, source)


def lower_mean(emitter: Emitter, node: Node) -> None:
    """MEAN."""
    (source,) = emitter.inputs(node)
    layout = _layout(emitter, node)
    axes = sorted(layout.axis(axis) for axis in node["axes"])
    average(emitter, source, axes, emitter.result(node), keep_axes=node["keepdim"])


def lower_concat(emitter: Emitter, node: Node) -> None:
    """CONCATENATION."""
    concatenate(emitter, emitter.inputs(node), _layout(emitter, node).axis(node["axis"]), emitter.result(node))


def lower_pad(emitter: Emitter, node: Node) -> None:
    """PAD, or PADV2 where the value is not zero; negative amounts are cut off before."""
    (source,) = emitter.inputs(node)
    rank, amounts = len(source.shape), node["amounts"]
    around = [(amounts[axis], amounts[rank + axis]) for axis in _layout(emitter, node).order]
    if min(amounts) < 0:
        kept = [range(max(-b, 0), size - max(-a, 0)) for size, (b, a) in zip(source.shape, around, strict=True)]
        target = emitter.temporary(f"{node.output}/cut", [len(k) for k in kept], source)
        source = take(emitter, source, kept, target)
        around = [(max(before, 0), max(after, 0)) for before, after in around]
    value = np.asarray(node["value"], np.float32)
    if source.params is not None:
        value = quantize(value, source.params)
    pad(emitter, source, around, emitter.result(node), None if node["value"] == 0 else value)


def lower_slice(emitter: Emitter, node: Node) -> None:
    """SLICE, or STRIDED_SLICE where a step is not 1."""
    (source,) = emitter.inputs(node)
    layout = _layout(emitter, node)
    taken = [range(size) for size in source.shape]
    for axis, *bounds in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
        taken[layout.axis(axis)] = range(*bounds)
    take(emitter, source, taken, emitter.result(node))


def average(emitter: Emitter, source: Operand, axes: Sequence[int], target: Operand, *, keep_axes: bool) -> Operand:
    """Mean over physical axes."""
    inputs = [source, emitter.vector(f"{target.name}/axes", axes)]
    return emitter.emit(Builtin.MEAN, inputs, target, schema.ReducerOptionsT(keepDims=keep_axes))


def concatenate(emitter: Emitter, sources: Sequence[Operand], axis: int, target: Operand) -> Operand:
    """Join along a physical axis."""
    return emitter.emit(Builtin.CONCATENATION, sources, target, schema.ConcatenationOptionsT(axis=axis))


def take(emitter: Emitter, source: Operand, taken: Sequence[range], target: Operand) -> Operand:
    """The elements `taken` along every physical axis."""
    begin = emitter.vector(f"{target.name}/begin", [r.start for r in taken])
    if all(r.step == 1 for r in taken):
        inputs = [source, begin, emitter.vector(f"{target.name}/size", target.shape)]
        return emitter.emit(Builtin.SLICE, inputs, target, schema.SliceOptionsT())
    end = emitter.vector(f"{target.name}/end", [r.stop for r in taken])
    step = emitter.vector(f"{target.name}/step", [r.step for r in taken])
    return emitter.emit(Builtin.STRIDED_SLICE, [source, begin, end, step], target, schema.StridedSliceOptionsT())


def _layout(emitter: Emitter, node: Node) -> Layout:
    """The layout the node's first input is read in."""
    layout = emitter.placement(node).wanted[0]
    assert layout is not None
    return layout
