"""Comparisons, functions of booleans, selection and casts."""

from __future__ import annotations

from toolchain.formats.onnx.lowerings.rule import LoweringRule, plain
from toolchain.formats.onnx.scope import ELEMENT_TYPES, Scope, Tensor
from toolchain.graph import DType, Node, Op

_WITHOUT_ORDER = (DType.UINT8, DType.INT8, DType.INT16)
"""Element types that onnxruntime has no comparison kernel for."""


def _comparison(op_type: str) -> LoweringRule:
    def rule(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
        sources: list[Tensor | str] = list(inputs)
        if scope.graph.types[node.inputs[0]].dtype in _WITHOUT_ORDER:
            sources = [_cast_to(scope, tensor, DType.INT32).name for tensor in inputs]
        scope.apply(op_type, sources, result, name=node.name)

    return rule


def _not_equal(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    equal = scope.auxiliary(node.output, "equal")
    _comparison("Equal")(scope, node, inputs, equal)
    scope.apply("Not", [equal], result)


def _cast_to(scope: Scope, source: Tensor, dtype: DType) -> Tensor:
    target = scope.auxiliary(source.name, dtype.value)
    scope.apply("Cast", [source], target, to=ELEMENT_TYPES[dtype])
    return target


def _cast(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    scope.apply("Cast", inputs, result, name=node.name, to=ELEMENT_TYPES[DType(node["dtype"])])


LOGIC: dict[Op, LoweringRule] = {
    Op.EQUAL: _comparison("Equal"),
    Op.NOT_EQUAL: _not_equal,
    Op.LESS: _comparison("Less"),
    Op.LESS_EQUAL: _comparison("LessOrEqual"),
    Op.GREATER: _comparison("Greater"),
    Op.GREATER_EQUAL: _comparison("GreaterOrEqual"),
    Op.LOGICAL_AND: plain("And"),
    Op.LOGICAL_OR: plain("Or"),
    Op.LOGICAL_NOT: plain("Not"),
    Op.WHERE: plain("Where"),
    Op.CAST: _cast,
}
