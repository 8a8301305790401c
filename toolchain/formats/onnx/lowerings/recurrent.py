"""Recurrent layers as ONNX's LSTM, GRU and RNN, which have time first. An LSTM node of the file gives hidden and cell
states to the nodes of the graph that differ in nothing else."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from toolchain.formats.onnx.gates import ORDERS, row_order
from toolchain.formats.onnx.lowerings.rule import LoweringRule
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op

_NAMES: Final = {Op.LSTM: "LSTM", Op.GRU: "GRU", Op.RNN: "RNN"}


def _recurrent(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    hidden, cell = _states(scope, node, inputs)
    if node.attributes.get("gives") == "cell":
        scope.emit("Squeeze", [cell, _axes(scope, node, 0)], result.name, name=node.name)
        return
    steps = scope.auxiliary(node.output, "steps").name
    scope.emit("Squeeze", [hidden, _axes(scope, node, 1)], steps)
    scope.emit("Transpose", [steps], result.name, name=node.name, perm=[1, 0, 2])


def _states(scope: Scope, node: Node, inputs: list[Tensor]) -> tuple[str, str]:
    """Names of the hidden states (T, 1, N, H) and of the last cell state (1, N, H)."""
    key = (node.op, node.inputs, node["reverse"])
    if key not in scope.shared:
        names = (scope.auxiliary(node.output, "hidden").name, scope.auxiliary(node.output, "cell").name)
        outputs = [names[0], "", names[1]] if node.op is Op.LSTM else names[:1]
        given = [_time_first(scope, node, inputs[0]), *_parameters(scope, node, inputs[1:5])]
        states = [_start(scope, node, inputs[0], at, state) for at, state in enumerate(inputs[5:], 5)]
        scope.emit_many(
            _NAMES[node.op], [*given, *(["", *states] if states else [])], outputs, **_attributes(scope, node)
        )
        scope.shared[key] = names
    hidden, cell = scope.shared[key]
    return hidden, cell


def _attributes(scope: Scope, node: Node) -> dict[str, Any]:
    found: dict[str, Any] = {"hidden_size": scope.graph.types[node.inputs[2]].shape[1]}
    found["direction"] = "reverse" if node["reverse"] else "forward"
    if node.op is Op.GRU:
        found["linear_before_reset"] = 1  # as torch: the reset gate meets the product, not the state
    if node.op is Op.RNN:
        found["activations"] = ["Relu" if node["nonlinearity"] == "relu" else "Tanh"]
    return found


def _time_first(scope: Scope, node: Node, source: Tensor) -> str:
    key = ("time first", source.name)
    if key not in scope.shared:
        scope.shared[key] = (scope.auxiliary(node.output, "time_first").name,)
        scope.emit("Transpose", [source.name], scope.shared[key][0], perm=[1, 0, 2])
    return scope.shared[key][0]


def _parameters(scope: Scope, node: Node, inputs: list[Tensor]) -> list[str]:
    """W (1, G H, C), R (1, G H, H) and B (1, 2 G H), which is both biases."""
    placed = zip(node.inputs[1:5], inputs, strict=True)
    weight, recurrent_weight, *biases = (_as_onnx(scope, node, name, scope.real(tensor)) for name, tensor in placed)
    both = scope.auxiliary(node.output, "biases").name
    scope.emit("Concat", biases, both, axis=1)
    return [weight, recurrent_weight, both]


def _as_onnx(scope: Scope, node: Node, name: str, real: str) -> str:
    """The constant with its gates in ONNX's order, put so here where the file holds it as the graph does."""
    if name in scope.gates:
        return real
    ordered, placed = (scope.auxiliary(f"{node.output}/{name}", part).name for part in ("ordered", "placed"))
    rows = row_order(scope.graph.types[name].shape[0], ORDERS[node.op])
    scope.emit("Gather", [real, scope.store_axis_values(f"{ordered}/rows", rows.tolist())], ordered, axis=0)
    scope.emit("Unsqueeze", [ordered, _axes(scope, node, 0)], placed)
    return placed


def _start(scope: Scope, node: Node, source: Tensor, at: int, state: Tensor) -> str:
    """A state before the first step (1, N, H), of one that is (N, H) or the same of every sample."""
    batch, rows = (scope.graph.types[name].shape[0] for name in (node.inputs[0], node.inputs[at]))
    name = state.name if rows == batch else _repeated(scope, node, source, at, state.name)
    placed = scope.auxiliary(node.output, f"start_{at}").name
    scope.emit("Unsqueeze", [name, _axes(scope, node, 0)], placed)
    return placed


def _repeated(scope: Scope, node: Node, source: Tensor, at: int, state: str) -> str:
    """One row a sample of the batch that comes."""
    names = [scope.auxiliary(node.output, f"start_{at}/{part}").name for part in ("sizes", "batch", "shape", "rows")]
    sizes, batch, shape, rows = names
    scope.emit("Shape", [source.name], sizes)
    scope.emit("Gather", [sizes, scope.store_axis_values(f"{node.output}/batch_axis", (0,))], batch, axis=0)
    width = scope.store_axis_values(f"{node.output}/width", scope.graph.types[node.inputs[at]].shape[1:])
    scope.emit("Concat", [batch, width], shape, axis=0)
    scope.emit("Expand", [state, shape], rows)
    return rows


def _axes(scope: Scope, node: Node, axis: int) -> str:
    return scope.store(f"{node.output}/axis_{axis}", np.asarray([axis], np.int64))


RECURRENT_LAYERS: dict[Op, LoweringRule] = dict.fromkeys(_NAMES, _recurrent)
