"""What selects by index or repeats, as TFLite operators: GATHER and BROADCAST_TO.

TFLite has no gather of elements. In a tensor laid out as one line, the element at `(c_0, ..., c_n)` is the one at
`sum_k c_k stride_k`, so the places of `input[c_0, ..., indices[c], ..., c_n]` are `indices * stride_axis` plus a
constant, and one GATHER along that line takes them.
"""

from __future__ import annotations

from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.lowerings.arithmetic import cast
from toolchain.formats.tflite.lowerings.moves import read_layout
from toolchain.graph import DType, Node, Op, unsupported

_BROADCAST_RANK = 8


def lower_gather(emitter: Emitter, node: Node) -> None:
    """GATHER."""
    source, indices = emitter.inputs(node)
    axis = read_layout(emitter, node).axis(node["axis"])
    emitter.emit(Builtin.GATHER, [source, indices], emitter.result(node), schema.GatherOptionsT(axis=axis))


def lower_gather_elements(emitter: Emitter, node: Node) -> None:
    """GATHER along the whole tensor as one line."""
    source, indices = emitter.inputs(node)
    axis = read_layout(emitter, node).axis(node["axis"])
    places = _places(emitter, node, source, indices, axis)
    line = emitter.temporary(f"{node.output}/line", [prod(source.shape)], source)
    emitter.reshape_into(source, line)
    emitter.emit(Builtin.GATHER, [line, places], emitter.result(node), schema.GatherOptionsT(axis=0))


def _places(emitter: Emitter, node: Node, source: Operand, indices: Operand, axis: int) -> Operand:
    strides = [prod(source.shape[k + 1 :]) for k in range(len(source.shape))]
    coordinates = np.indices(indices.shape, np.int32)
    coordinates[axis] = 0
    offsets = np.tensordot(np.asarray(strides, np.int32), coordinates, 1).astype(np.int32)
    if indices.dtype is not DType.INT32:
        indices = cast(emitter, indices, DType.INT32)
    if strides[axis] != 1:
        stride = emitter.add_constant(f"{node.output}/stride", np.full([1] * len(strides), strides[axis], np.int32))
        scaled = emitter.temporary(f"{node.output}/scaled", indices.shape, indices)
        indices = emitter.emit(Builtin.MUL, [indices, stride], scaled, schema.MulOptionsT())
    if offsets.any():
        offset = emitter.add_constant(f"{node.output}/offsets", offsets)
        places = emitter.temporary(f"{node.output}/places", indices.shape, indices)
        indices = emitter.emit(Builtin.ADD, [indices, offset], places, schema.AddOptionsT())
    return indices


def lower_expand(emitter: Emitter, node: Node) -> None:
    """BROADCAST_TO."""
    (source,) = emitter.inputs(node)
    result = emitter.result(node)
    if len(result.shape) > _BROADCAST_RANK:
        raise unsupported(node, f"is of rank {len(result.shape)}; TFLite broadcasts to {_BROADCAST_RANK} axes at most")
    shape = emitter.vector(f"{result.name}/shape", result.shape)
    emitter.emit(Builtin.BROADCAST_TO, [source, shape], result, schema.BroadcastToOptionsT())


INDEXING: dict[Op, Lowering] = {
    Op.GATHER: lower_gather,
    Op.GATHER_ELEMENTS: lower_gather_elements,
    Op.EXPAND: lower_expand,
}
