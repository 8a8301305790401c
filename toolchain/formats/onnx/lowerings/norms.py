"""Layer norms: LayerNormalization from opset 17 on, else written out; the root mean square norm is written out.

rms_norm(x) = x / sqrt(mean(x^2) + epsilon) weight
"""

from __future__ import annotations

from math import prod

import numpy as np

from toolchain.formats.onnx.lowerings.reductions import reduce_axes
from toolchain.formats.onnx.lowerings.rule import LoweringRule, reshape_to
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op


def _layer_norm(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    source, *parameters = inputs
    if scope.opset < 17:
        centred = _applied(scope, node, "Sub", [source, _mean(scope, node, source, "mean")], "centred")
        _scaled(scope, node, centred, parameters, result)
        return
    shape = [scope.graph.types[node.inputs[0]].shape[axis] for axis in node["axes"]]
    given: list[Tensor | str] = list(parameters)
    if not given:
        given = [scope.store(f"{node.output}/ones", np.ones(shape, np.float32))]
    if scope.qdq_only and len(shape) > 1:
        _flat_layer_norm(scope, node, source, given, result)
        return
    options = {"axis": node["axes"][0], "epsilon": float(node["epsilon"])}
    scope.apply("LayerNormalization", [source, *given], result, name=node.name, **options)


def _flat_layer_norm(scope: Scope, node: Node, source: Tensor, given: list[Tensor | str], result: Tensor) -> None:
    """Over one axis that the normalized ones are joined to: compilers of NPUs take the last alone."""
    shape, first = scope.graph.types[node.inputs[0]].shape, node["axes"][0]
    width = prod(shape[first:])
    rows, normed = (scope.auxiliary(node.output, step) for step in ("rows", "normed"))
    reshape_to(scope, source, rows, (*shape[:first], width))
    flat = []
    for at, parameter in enumerate(given):
        flat.append(scope.auxiliary(node.output, f"parameter_{at}"))
        held = Tensor(parameter) if isinstance(parameter, str) else parameter
        reshape_to(scope, held, flat[-1], (width,))
    options = {"axis": len(shape[:first]), "epsilon": float(node["epsilon"])}
    scope.apply("LayerNormalization", [rows, *flat], normed, name=node.name, **options)
    reshape_to(scope, normed, result, scope.graph.types[node.output].shape)


def _rms_norm(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    source, *parameters = inputs
    _scaled(scope, node, source, parameters, result)


def _scaled(scope: Scope, node: Node, source: Tensor, parameters: list[Tensor], result: Tensor) -> None:
    """`source` over its root mean square, times the weight, plus the bias."""
    square = _applied(scope, node, "Mul", [source, source], "square")
    epsilon = scope.store(f"{node.output}/epsilon", np.asarray(node["epsilon"], np.float32))
    above = _applied(scope, node, "Add", [_mean(scope, node, square, "power"), epsilon], "above")
    root = _applied(scope, node, "Sqrt", [above], "root")
    *before, (last, operand) = [("Div", root), *zip(("Mul", "Add"), parameters, strict=False)]
    for op, other in before:
        source = _applied(scope, node, op, [source, other], op.lower())
    scope.apply(last, [source, operand], result, name=node.name)


def _applied(scope: Scope, node: Node, op: str, inputs: list[Tensor | str], suffix: str) -> Tensor:
    target = scope.auxiliary(node.output, suffix)
    scope.apply(op, inputs, target)
    return target


def _mean(scope: Scope, node: Node, source: Tensor, suffix: str) -> Tensor:
    target = scope.auxiliary(node.output, suffix)
    reduce_axes(scope, "ReduceMean", source, node["axes"], target, keepdims=1)
    return target


NORMS: dict[Op, LoweringRule] = {Op.LAYER_NORM: _layer_norm, Op.RMS_NORM: _rms_norm}
