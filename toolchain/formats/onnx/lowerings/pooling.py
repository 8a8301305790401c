"""Pools over windows."""

from __future__ import annotations

from toolchain.formats.onnx.lowerings.rule import LoweringRule
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op


def _max_pool2d(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    window = {"kernel_shape": node["kernel_size"], "strides": node["stride"], "pads": node["padding"]}
    scope.apply("MaxPool", inputs, result, name=node.name, **window)


def _avg_pool2d(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    window = {"kernel_shape": node["kernel_size"], "strides": node["stride"], "pads": node["padding"]}
    scope.apply("AveragePool", inputs, result, name=node.name, **window, count_include_pad=0)


POOLING: dict[Op, LoweringRule] = {
    Op.MAX_POOL2D: _max_pool2d,
    Op.AVG_POOL2D: _avg_pool2d,
}
