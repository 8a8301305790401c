"""Weights and biases of recurrent layers: gates in torch's order in the graph; in a file in ONNX's, behind an axis for
the one direction.

    lstm   i, f, g, o  ->  i, o, f, g
    gru    r, z, n     ->  z, r, n

A constant that other ops read as well stays as the graph has it and is reordered when the file is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np

from toolchain.graph import RECURRENT, Graph, Node, Op
from toolchain.quantization import AffineParams

Order: TypeAlias = tuple[int, ...]

ORDERS: Final[Mapping[Op, Order]] = {Op.LSTM: (0, 3, 1, 2), Op.GRU: (1, 0, 2), Op.RNN: (0,)}
"""Places in torch's order of the gates in ONNX's."""

_HAVE_GATES = slice(1, 5)


def gate_orders(graph: Graph) -> dict[str, Order]:
    """Constants that a file holds with their gates as ONNX has them, and the order of these."""
    found: dict[str, Order] = {}
    for node in graph.nodes:
        if node.op in RECURRENT:
            for name in node.inputs[_HAVE_GATES]:
                if all(_reads_gates(reader, name) and reader.op is node.op for reader in graph.consumers[name]):
                    found[name] = ORDERS[node.op]
    return found


def _reads_gates(reader: Node, name: str) -> bool:
    return reader.op in RECURRENT and name not in (*reader.inputs[:1], *reader.inputs[5:])


def row_order(rows: int, order: Order) -> np.ndarray:
    """Which row of the graph's constant stands where in the file."""
    return np.arange(rows).reshape(len(order), -1)[list(order)].reshape(-1)


def reordered(values: np.ndarray, order: Order) -> np.ndarray:
    """The constant as ONNX has it."""
    return np.ascontiguousarray(values[row_order(len(values), order)][None])


def reordered_params(params: AffineParams | None, order: Order) -> AffineParams | None:
    """Scales of the rows, which are then the second axis; of a single one, either."""
    if params is None or params.axis is None:
        return params
    rows = row_order(params.scale.size, order)
    scale, zero_point = params.scale[rows], params.zero_point[rows]
    return replace(params, scale=scale, zero_point=zero_point, axis=1 if len(rows) > 1 else 0)
