"""Reductions along axes, sums so far, and the largest few.

The mean of integers is a GlobalAveragePool over the averaged axes, moved behind the others: that has an integer
kernel in onnxruntime. Where all ops are to be in QDQ form it is a ReduceMean.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from onnx import helper

from toolchain.formats.onnx.lowerings.rule import LoweringRule, reshape_to
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op

_AXES_ARE_INPUT_FROM = {"ReduceSum": 13, "ReduceMean": 18, "ReduceMax": 18, "ReduceMin": 18}
"""The opset in which the axes became an input."""


def reduce_axes(
    scope: Scope, op_type: str, source: Tensor, axes: Sequence[int], result: Tensor, *, keepdims: int, name: str = ""
) -> None:
    """Write `result = op_type(source)` over `axes`."""
    if scope.opset >= _AXES_ARE_INPUT_FROM[op_type]:
        stored = scope.store_axis_values(f"{result.name}/axes", axes)
        scope.apply(op_type, [source, stored], result, name=name, keepdims=keepdims)
    else:
        scope.apply(op_type, [source], result, name=name, axes=axes, keepdims=keepdims)


def _reduce(op_type: str) -> LoweringRule:
    def rule(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
        keepdims = int(node["keepdim"])
        reduce_axes(scope, op_type, inputs[0], node["axes"], result, keepdims=keepdims, name=node.name)

    return rule


def _mean(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    rank = scope.graph.types[node.inputs[0]].rank
    if rank == 4 and tuple(sorted(node["axes"])) == (2, 3):
        _global_mean(scope, node, inputs[0], result)
    elif inputs[0].params is None or result.params is None or scope.qdq_only:
        keepdims = int(node["keepdim"])
        reduce_axes(scope, "ReduceMean", inputs[0], node["axes"], result, keepdims=keepdims, name=node.name)
    else:
        _mean_of_rows(scope, node, inputs[0], result)


def _global_mean(scope: Scope, node: Node, source: Tensor, result: Tensor) -> None:
    if node["keepdim"]:
        scope.apply("GlobalAveragePool", [source], result, name=node.name)
        return
    pooled = scope.auxiliary(node.output, "pooled", result.params)
    scope.apply("GlobalAveragePool", [source], pooled, name=node.name)
    reshape_to(scope, pooled, result, scope.graph.types[node.output].shape)


def _mean_of_rows(scope: Scope, node: Node, source: Tensor, result: Tensor) -> None:
    shape, axes = scope.graph.types[node.inputs[0]].shape, tuple(sorted(node["axes"]))
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    if (*kept, *axes) != tuple(range(len(shape))):
        permuted = scope.auxiliary(node.output, "permuted", source.params)
        scope.apply("Transpose", [source], permuted, perm=(*kept, *axes))
        source = permuted
    rows = scope.auxiliary(node.output, "rows", source.params)
    pooled = scope.auxiliary(node.output, "pooled", result.params)
    reshape_to(scope, source, rows, (1, prod(shape[a] for a in kept), prod(shape[a] for a in axes)))
    scope.apply("GlobalAveragePool", [rows], pooled, name=node.name)
    reshape_to(scope, pooled, result, scope.graph.types[node.output].shape)


def _argument(op_type: str) -> LoweringRule:
    def rule(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
        # the integers are in the order of the reals
        read = scope.real(inputs[0]) if scope.qdq_only else inputs[0].name
        options = {"axis": node["axis"], "keepdims": int(node["keepdim"])}
        scope.emit(op_type, [read], result.name, name=node.name, **options)

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
    Op.MEAN: _mean,
    Op.SUM: _reduce("ReduceSum"),
    Op.REDUCE_MAX: _reduce("ReduceMax"),
    Op.REDUCE_MIN: _reduce("ReduceMin"),
    Op.ARGMAX: _argument("ArgMax"),
    Op.ARGMIN: _argument("ArgMin"),
    Op.CUMSUM: _cumsum,
    Op.TOPK_VALUES: _topk(0),
    Op.TOPK_INDICES: _topk(1),
}
