"""Reductions along axes, sums so far, and the largest few."""

from __future__ import annotations

import numpy as np
from onnx import helper

from toolchain.formats.onnx.lowerings.rule import LoweringRule, plain
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op


def _reduce(op_type: str, axes_are_input_from: int) -> LoweringRule:
    """`op_type`, whose axes became an input with that opset."""

    def rule(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
        keepdims = int(node["keepdim"])
        if scope.opset >= axes_are_input_from:
            axes = scope.store_axis_values(f"{node.output}/axes", node["axes"])
            scope.apply(op_type, [*inputs, axes], result, name=node.name, keepdims=keepdims)
        else:
            scope.apply(op_type, inputs, result, name=node.name, axes=node["axes"], keepdims=keepdims)

    return rule


def _argument(op_type: str) -> LoweringRule:
    def rule(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
        # the integers are in the order of the reals
        options = {"axis": node["axis"], "keepdims": int(node["keepdim"])}
        scope.emit(op_type, [inputs[0].name], result.name, name=node.name, **options)

    return rule


def _cumsum(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    axis = scope.store(f"{node.output}/axis", np.asarray(node["axis"], np.int64))
    scope.apply("CumSum", [*inputs, axis], result, name=node.name)


def _topk(output: int) -> LoweringRule:
    """Values (output 0) or indices (output 1)."""

    def rule(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
        count = scope.store_axis_values(f"{node.output}/count", (node["count"],))
        outputs = [scope.auxiliary(node.output, "other").name] * 2
        outputs[output] = result.name
        proto = helper.make_node("TopK", [scope.real(inputs[0]), count], outputs, name=node.name, axis=node["axis"])
        if output == 0 and result.params is not None:
            outputs[0] = proto.output[0] = scope.auxiliary(node.output, "unrounded").name
        scope.proto.node.append(proto)
        if output == 0 and result.params is not None:
            scope.quantize(outputs[0], result)

    return rule


REDUCTIONS: dict[Op, LoweringRule] = {
    Op.SUM: _reduce("ReduceSum", 13),
    Op.REDUCE_MAX: _reduce("ReduceMax", 18),
    Op.REDUCE_MIN: _reduce("ReduceMin", 18),
    Op.ARGMAX: _argument("ArgMax"),
    Op.ARGMIN: _argument("ArgMin"),
    Op.CUMSUM: _cumsum,
    Op.TOPK_VALUES: _topk(0),
    Op.TOPK_INDICES: _topk(1),
    Op.MATMUL: plain("MatMul"),
}
