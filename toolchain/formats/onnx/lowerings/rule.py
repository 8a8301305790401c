"""What the lowerings have in common.

A rule writes `result = op(inputs)` into a `Scope`, without the fused activation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import DType, Node
from toolchain.quantization import clamp_integers

LoweringRule: TypeAlias = Callable[[Scope, Node, list[Tensor], Tensor], None]


def plain(op_type: str, **attributes: Any) -> LoweringRule:
    """The rule of an op that ONNX has with the same inputs, under `op_type`."""

    def rule(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
        scope.apply(op_type, inputs, result, name=node.name, **attributes)

    return rule


def clamp(scope: Scope, source: Tensor, result: Tensor, activation: str, name: str = "") -> None:
    """relu or relu6 of a tensor of the same parameters: Clip on integers, Relu or Clip on floats and in QDQ form."""
    if result.params is not None and not scope.qdq_only:
        bounds = clamp_integers(result.params, activation)
        scope.emit("Clip", [source.name, *bound_names(scope, result, *bounds)], result.name, name=name)
    elif activation == "relu6":
        scope.apply("Clip", [source, *bound_names(scope, result, 0, 6)], result, name=name)
    else:
        scope.apply("Relu", [source], result, name=name)


def bound_names(scope: Scope, result: Tensor, low: float, high: float) -> list[str]:
    """Names of two scalars of the element type in which `result` is computed."""
    types = scope.graph.types
    real = types[result.name].dtype if result.name in types else DType.FLOAT32
    dtype = real if result.params is None or scope.qdq_only else result.params.dtype
    named = (("minimum", low), ("maximum", high))
    return [scope.store(f"{result.name}/{key}", np.asarray(value, dtype.numpy)) for key, value in named]


def number(scope: Scope, node: Node, key: str, value: float) -> str:
    """Name of a float32 scalar that belongs to `node`."""
    return scope.store(f"{node.output}/{key}", np.asarray(value, np.float32))


def reshape_to(scope: Scope, source: Tensor, result: Tensor, shape: tuple[int, ...], name: str = "") -> None:
    """Write `result = source` in another shape."""
    stored = scope.store_axis_values(f"{result.name}/shape", shape)
    scope.apply("Reshape", [source, stored], result, name=name)
