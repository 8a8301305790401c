"""Pads, done on the integers where there are such: with that of the pad's value, or with others of the tensor. In QDQ
form the value is real."""

from __future__ import annotations

import numpy as np

from toolchain.formats.onnx.lowerings.rule import LoweringRule
from toolchain.formats.onnx.scope import Scope, Tensor
from toolchain.graph import Node, Op
from toolchain.quantization import quantize

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _pad(scope: Scope, node: Node, inputs: list[Tensor], result: Tensor) -> None:
    (source,) = inputs
    amounts = scope.store_axis_values(f"{node.output}/amounts", node["amounts"])
    on_integers = source.params is not None and source.params == result.params and not scope.qdq_only
    fill = []
    if node["mode"] == "constant":
        fill = [scope.store(f"{node.output}/value", _value(scope, node, source if on_integers else None))]
    if on_integers:
        names = [source.name, amounts, *fill]
        scope.emit("Pad", names, result.name, name=node.name, mode=_MODES[node["mode"]])
    else:
        scope.apply("Pad", [source, amounts, *fill], result, name=node.name, mode=_MODES[node["mode"]])


def _value(scope: Scope, node: Node, source: Tensor | None) -> np.ndarray:
    if source is None or source.params is None:
        return np.asarray(node["value"], scope.graph.types[node.output].dtype.numpy)
    return quantize(np.asarray(node["value"], np.float64), source.params)


PADDING: dict[Op, LoweringRule] = {Op.PAD: _pad}
