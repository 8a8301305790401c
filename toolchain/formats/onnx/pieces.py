"""An ONNX file cut at some of its tensors: each, with what computes it from the others, as a file of its own.

Cut at its integers, a quantized file falls into single ops with the DequantizeLinear and QuantizeLinear around them, as
runtimes fuse them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper

from toolchain.formats.artifact import Piece


def onnx_pieces(model: ModelProto, values: Mapping[str, np.ndarray], outputs: Collection[str]) -> Iterator[Piece]:
    """What computes each of `outputs` from those of `values` that stand before it; of these types and shapes."""
    makers = {name: node for node in model.graph.node for name in node.output if name}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in outputs:
        if name not in makers or name not in values:
            continue
        nodes, given = _behind(name, makers, values, constants)
        if given is None:
            continue
        held = {read for node in nodes for read in node.input} & constants.keys()
        graph = helper.make_graph(
            nodes,
            "piece",
            [_port(port, values[port]) for port in given],
            [_port(name, values[name])],
            [tensor for key, tensor in constants.items() if key in held],
        )
        piece = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        first = makers[name]
        while first.op_type in ("QuantizeLinear", "Clip") and first.input[0] in makers:
            first = makers[first.input[0]]
        ports = tuple({"name": port} for port in given)
        yield Piece(first.op_type, piece.SerializeToString(), ports, ({"name": name},))


def _behind(
    name: str, makers: Mapping[str, NodeProto], values: Collection[str], constants: Collection[str]
) -> tuple[list[NodeProto], list[str] | None]:
    """The nodes that compute `name` from `values`, in order, and which of these; None where there are more inputs."""
    nodes: list[NodeProto] = []
    given: dict[str, None] = {}
    stack = [(makers[name], False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            nodes.append(node)
            continue
        if any(node is known for known in nodes):
            continue
        stack.append((node, True))
        for read in node.input:
            if not read or read in constants:
                continue
            if read in values:
                given[read] = None
            elif read in makers:
                stack.append((makers[read], False))
            else:
                return [], None
    return nodes, list(given)


def _port(name: str, values: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape)
