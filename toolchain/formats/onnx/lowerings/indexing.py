"""What selects by index or repeats. Integers of the same parameters are moved as they are, without a conversion, unless
all ops are to be in QDQ form."""

from __future__ import annotations

from typing import Any

from toolchain.formats.onnx.lowerings.rule import LoweringRule
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op


def _moved(
    scope: Scope, node: Node, op_type: str, inputs: list[Tensor | str], result: Tensor, **attributes: Any
) -> None:
    """`op_type` of the first input, straight on its integers where the result has its parameters."""
    source = inputs[0]
    is_integer = isinstance(source, Tensor) and source.params is not None and source.params == result.params
    if is_integer and not scope.qdq_only:
        names = [given if isinstance(given, str) else given.name for given in inputs]
        scope.emit(op_type, names, result.name, name=node.name, **attributes)
    else:
        scope.apply(op_type, inputs, result, name=node.name, **attributes)


def _gather(op_type: str) -> LoweringRule:
    def rule(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
        _moved(scope, node, op_type, [*inputs], result, axis=node["axis"])

    return rule


def _expand(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    shape = scope.store_axis_values(f"{result.name}/shape", node["shape"])
    _moved(scope, node, "Expand", [inputs[0], shape], result)


INDEXING: dict[Op, LoweringRule] = {
    Op.GATHER: _gather("Gather"),
    Op.GATHER_ELEMENTS: _gather("GatherElements"),
    Op.EXPAND: _expand,
}
