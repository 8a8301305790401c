"""Layer norms written out, in float:

centred = x - mean(x),   layer_norm = centred rsqrt(mean(centred^2) + epsilon) weight + bias
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.lowerings.arithmetic import scalar
from toolchain.formats.tflite.lowerings.moves import average
from toolchain.graph import Node, Op


def _layer_norm(emitter: Emitter, node: Node) -> None:
    source, *parameters = emitter.inputs(node)
    centred = _step(emitter, node, Builtin.SUB, [source, _mean(emitter, node, source, "mean")], "centred")
    _scale(emitter, node, centred, parameters)


def _rms_norm(emitter: Emitter, node: Node) -> None:
    source, *parameters = emitter.inputs(node)
    _scale(emitter, node, source, parameters)


def _scale(emitter: Emitter, node: Node, source: Operand, parameters: list[Operand]) -> None:
    """`source` over its root mean square, times the weight, plus the bias."""
    square = _step(emitter, node, Builtin.MUL, [source, source], "square")
    power = _mean(emitter, node, square, "power")
    epsilon = scalar(emitter, f"{node.output}/epsilon", node["epsilon"], power)
    above = _step(emitter, node, Builtin.ADD, [power, epsilon], "above", power)
    factor = _step(emitter, node, Builtin.RSQRT, [above], "factor", power)
    steps = [(Builtin.MUL, factor), *zip((Builtin.MUL, Builtin.ADD), parameters, strict=False)]
    for number, (code, operand) in enumerate(steps):
        is_last = number == len(steps) - 1
        target = emitter.result(node) if is_last else emitter.temporary(f"{node.output}/{number}", source.shape, source)
        source = emitter.emit(code, [source, operand], target, _OPTIONS[code]())


def _step(
    emitter: Emitter, node: Node, code: int, inputs: list[Operand], suffix: str, like: Operand | None = None
) -> Operand:
    like = like or inputs[0]
    target = emitter.temporary(f"{node.output}/{suffix}", like.shape, like)
    return emitter.emit(code, inputs, target, _OPTIONS.get(code, lambda: None)())


def _mean(emitter: Emitter, node: Node, source: Operand, suffix: str) -> Operand:
    layout = emitter.placement(node).wanted[0]
    assert layout is not None
    axes = sorted(layout.axis(axis) for axis in node["axes"])
    shape = [1 if axis in axes else size for axis, size in enumerate(source.shape)]
    return average(emitter, source, axes, emitter.temporary(f"{node.output}/{suffix}", shape, source), keep_axes=True)


_OPTIONS: dict[int, Any] = {
    Builtin.ADD: schema.AddOptionsT,
    Builtin.SUB: schema.SubOptionsT,
    Builtin.MUL: schema.MulOptionsT,
}

NORMS: dict[Op, Lowering] = {Op.LAYER_NORM: _layer_norm, Op.RMS_NORM: _rms_norm}
