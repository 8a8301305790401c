"""What moves or selects elements."""

from __future__ import annotations

from toolchain.formats.onnx.lowerings.rule import LoweringRule, reshape_to
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op


def _reshape(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    reshape_to(scope, inputs[0], result, node["shape"], node.name)


def _permute(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("Transpose", inputs, result, name=node.name, perm=node["axes"])


def _concat(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("Concat", inputs, result, name=node.name, axis=node["axis"])


def _slice(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    keys = ("starts", "stops", "axes", "steps")
    names = [scope.store_axis_values(f"{node.output}/{key}", node[key]) for key in keys]
    scope.apply("Slice", [*inputs, *names], result, name=node.name)


MOVES: dict[Op, LoweringRule] = {
    Op.RESHAPE: _reshape,
    Op.PERMUTE: _permute,
    Op.CONCAT: _concat,
    Op.SLICE: _slice,
}
