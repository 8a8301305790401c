"""Pools and reductions. A mean is a GlobalAveragePool over the averaged axes, moved behind the others: that has an
integer kernel in onnxruntime.
"""

from __future__ import annotations

from math import prod

from toolchain.formats.onnx.lowerings.rule import LoweringRule, reshape_to
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op


def _max_pool2d(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    window = {"kernel_shape": node["kernel_size"], "strides": node["stride"], "pads": node["padding"]}
    scope.apply("MaxPool", inputs, result, name=node.name, **window)


def _avg_pool2d(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    window = {"kernel_shape": node["kernel_size"], "strides": node["stride"], "pads": node["padding"]}
    scope.apply("AveragePool", inputs, result, name=node.name, **window, count_include_pad=0)


def _mean(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    rank = scope.graph.types[node.inputs[0]].rank
    if rank == 4 and tuple(sorted(node["axes"])) == (2, 3):
        _global_mean(scope, node, inputs[0], result)
    elif inputs[0].params is None or result.params is None:
        _reduce_mean(scope, node, inputs, result)
    else:
        _mean_of_rows(scope, node, inputs[0], result)


def _global_mean(scope: Scope, node: Node, source: Tensor, result: Tensor) -> None:
    if node["keepdim"]:
        scope.apply("GlobalAveragePool", [source], result, name=node.name)
        return
    pooled = scope.auxiliary(node.output, "pooled", result.params)
    scope.apply("GlobalAveragePool", [source], pooled, name=node.name)
    reshape_to(scope, pooled, result, scope.graph.types[node.output].shape)


def _reduce_mean(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    keepdims = int(node["keepdim"])
    if scope.opset >= 18:
        axes = scope.store_axis_values(f"{node.output}/axes", node["axes"])
        scope.apply("ReduceMean", [*inputs, axes], result, name=node.name, keepdims=keepdims)
    else:
        scope.apply("ReduceMean", inputs, result, name=node.name, axes=node["axes"], keepdims=keepdims)


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


POOLING: dict[Op, LoweringRule] = {
    Op.MAX_POOL2D: _max_pool2d,
    Op.AVG_POOL2D: _avg_pool2d,
    Op.MEAN: _mean,
}
