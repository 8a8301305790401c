"""Ops that move, select or average along axes, as TFLite operators; axes are mapped through the layout."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.layout import Layout
from toolchain.graph import Node, Op, unsupported

_MOST_JOINED = 6
_MOST_CUT = 5
"""Axes of the kernels of SLICE and STRIDED_SLICE."""


def _reshape(emitter: Emitter, node: Node) -> None:
    """RESHAPE."""
    (source,) = emitter.inputs(node)
    emitter.reshape_into(source, emitter.result(node))


def _permute(emitter: Emitter, node: Node) -> None:
    """No operator: the result is the input, its axes named anew, unless both must be tensors of the file."""
    (source,) = emitter.inputs(node)
    if emitter.needs_copy(node):
        emitter.reshape_into(source, emitter.result(node))
    else:
        emitter.bind(node.output, source)


def _concat(emitter: Emitter, node: Node) -> None:
    """CONCATENATION; of more axes than XNNPACK's kernel has, those before and behind the joined one are seen as one."""
    sources, target = emitter.inputs(node), emitter.result(node)
    axis = read_layout(emitter, node).axis(node["axis"])
    if len(target.shape) <= _MOST_JOINED:
        concatenate(emitter, sources, axis, target)
        return
    merged = [_merged_around(emitter, source, axis) for source in sources]
    whole = emitter.temporary(f"{target.name}/merged", _around(target.shape, axis), target)
    emitter.reshape_into(concatenate(emitter, merged, 1, whole), target)


def _merged_around(emitter: Emitter, source: Operand, axis: int) -> Operand:
    target = emitter.temporary(f"{source.name}/merged", _around(source.shape, axis), source)
    return emitter.reshape_into(source, target)


def _around(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def _slice(emitter: Emitter, node: Node) -> None:
    """SLICE, or STRIDED_SLICE where a step is not 1."""
    (source,) = emitter.inputs(node)
    layout = read_layout(emitter, node)
    taken = [range(size) for size in source.shape]
    for axis, *bounds in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
        taken[layout.axis(axis)] = range(*bounds)
    target = emitter.result(node)
    if len(taken) <= _MOST_CUT:
        take(emitter, source, taken, target)
        return
    groups = _neighbours(source.shape, taken)
    if len(groups) > _MOST_CUT:
        raise unsupported(node, f"cuts a tensor of {len(taken)} axes; TFLite's kernels have {_MOST_CUT}")
    merged = emitter.temporary(f"{node.output}/merged", [size for size, _ in groups], source)
    emitter.reshape_into(source, merged)
    cut = emitter.temporary(f"{node.output}/cut", [len(places) for _, places in groups], source)
    take(emitter, merged, [places for _, places in groups], cut)
    emitter.reshape_into(cut, target)


def _neighbours(shape: Sequence[int], taken: Sequence[range]) -> list[tuple[int, range]]:
    """Size and places of each axis that is cut, and of the runs of whole ones between, each seen as one axis."""
    groups: list[tuple[int, range]] = []
    whole = False
    for size, places in zip(shape, taken, strict=True):
        is_whole = places == range(size)
        merged = groups.pop()[0] * size if is_whole and whole else size
        groups.append((merged, range(merged) if is_whole else places))
        whole = is_whole
    return groups


def average(emitter: Emitter, source: Operand, axes: Sequence[int], target: Operand, *, keep_axes: bool) -> Operand:
    """Mean over physical axes."""
    return reduce_axes(emitter, Builtin.MEAN, source, axes, target, keep_axes=keep_axes)


def reduce_axes(
    emitter: Emitter, code: int, source: Operand, axes: Sequence[int], target: Operand, *, keep_axes: bool
) -> Operand:
    """The reduction `code` over physical axes."""
    inputs = [source, emitter.vector(f"{target.name}/axes", axes)]
    if code != Builtin.MEAN or list(axes) != [1, 2] or not emitter.numbers.sparse.members:
        return emitter.emit(code, inputs, target, schema.ReducerOptionsT(keepDims=keep_axes))
    # XNNPACK gives the mean of an image that it holds channels first the wrong shape, (N, C, 1, 1)
    image = emitter.temporary(f"{target.name}/image", (source.shape[0], 1, 1, source.shape[3]), target)
    emitter.emit(code, inputs, image, schema.ReducerOptionsT(keepDims=True))
    return emitter.reshape_into(image, target)


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


def read_layout(emitter: Emitter, node: Node) -> Layout:
    """The layout the node's first input is read in."""
    layout = emitter.placement(node).wanted[0]
    assert layout is not None
    return layout


MOVES: dict[Op, Lowering] = {
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.CONCAT: _concat,
    Op.SLICE: _slice,
}
