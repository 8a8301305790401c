"""Every operator of a TFLite file as a file of its own: the same options, constants and parameters, nothing around it.

Operators that keep a state between runs are left out: what they compute does not follow from their inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from toolchain.formats.artifact import Piece
from toolchain.formats.tflite.flatbuffer import IDENTIFIER, SCHEMA_VERSION
from toolchain.formats.tflite.parse import OPERATOR_NAMES


def tflite_pieces(content: bytes) -> Iterator[Piece]:
    """The operators of a sound file, in its order."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (graph,) = model.subgraphs
    for operator in graph.operators:
        used = list(dict.fromkeys(t for t in (*operator.inputs, *operator.outputs) if t >= 0))
        if any(graph.tensors[tensor].isVariable for tensor in used):
            continue
        code = model.operatorCodes[operator.opcodeIndex]
        place = {tensor: index for index, tensor in enumerate(used)}
        given = [
            t for t in dict.fromkeys(operator.inputs) if t >= 0 and model.buffers[graph.tensors[t].buffer].data is None
        ]

        def ports(tensors: list[int], place: dict[int, int] = place) -> tuple[dict[str, Any], ...]:
            return tuple({"name": graph.tensors[t].name.decode(), "index": place[t]} for t in tensors)

        yield Piece(
            OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)],
            _written(model, graph, operator, place, given),
            ports(given),
            ports(list(operator.outputs)),
        )


def _written(model: Any, graph: Any, operator: Any, place: dict[int, int], given: list[int]) -> bytes:
    """A model of one operator; the tensor `t` of the file is its `place[t]`."""
    alone = copy.copy(operator)
    alone.opcodeIndex = 0
    alone.inputs = [place.get(tensor, -1) for tensor in operator.inputs]
    alone.outputs = [place[tensor] for tensor in operator.outputs]
    part, piece = schema.SubGraphT(), schema.ModelT()
    piece.version, piece.buffers, part.tensors = SCHEMA_VERSION, [schema.BufferT()], []
    for tensor in place:
        kept = copy.copy(graph.tensors[tensor])
        piece.buffers.append(model.buffers[kept.buffer])
        kept.buffer = len(piece.buffers) - 1
        part.tensors.append(kept)
    part.operators, part.inputs, part.outputs = [alone], [place[tensor] for tensor in given], alone.outputs
    piece.operatorCodes, piece.subgraphs = [model.operatorCodes[operator.opcodeIndex]], [part]
    builder = flatbuffers.Builder(1024)
    builder.Finish(piece.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())
