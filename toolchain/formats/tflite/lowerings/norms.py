"""Norms written out, in float:

layer_norm   centred = x - mean(x),   centred rsqrt(mean(centred^2) + epsilon) weight + bias
rms_norm     x rsqrt(mean(x^2) + epsilon) weight
batch_norm   multiplier x + offset, a channel
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.lowerings.formula import Formula
from toolchain.formats.tflite.lowerings.moves import read_layout
from toolchain.graph import Node, Op
from toolchain.graph.fold import batch_norm_affine


def _layer_norm(emitter: Emitter, node: Node) -> None:
    f = Formula(emitter, node)
    _scale(f, node, f.sub(f.source, f.mean(f.source, node["axes"])))


def _rms_norm(emitter: Emitter, node: Node) -> None:
    f = Formula(emitter, node)
    _scale(f, node, f.source)


def _scale(f: Formula, node: Node, value: Operand) -> None:
    """`value` over its root mean square, times the weight, plus the bias."""
    power = f.add(f.mean(f.mul(value, value), node["axes"]), node["epsilon"])
    factor = f.apply(Builtin.RSQRT, [power])
    if not f.parameters:
        f.finish(Builtin.MUL, [value, factor], schema.MulOptionsT())
        return
    weight, *bias = f.parameters
    scaled = f.mul(value, factor)
    if bias:
        f.finish(Builtin.ADD, [f.mul(scaled, weight), bias[0]], schema.AddOptionsT())
    else:
        f.finish(Builtin.MUL, [scaled, weight], schema.MulOptionsT())


def _batch_norm(emitter: Emitter, node: Node) -> None:
    """Of a graph that was not folded."""
    f = Formula(emitter, node)
    channel = read_layout(emitter, node).axis(1)
    shape = [-1 if axis == channel else 1 for axis in range(len(f.source.shape))]
    multiplier, offset = (values.astype(np.float32).reshape(shape) for values in batch_norm_affine(emitter.graph, node))
    scaled = f.mul(f.source, emitter.add_constant(f"{node.output}/multiplier", multiplier))
    f.finish(Builtin.ADD, [scaled, emitter.add_constant(f"{node.output}/offset", offset)], schema.AddOptionsT())


NORMS: dict[Op, Lowering] = {Op.LAYER_NORM: _layer_norm, Op.RMS_NORM: _rms_norm, Op.BATCH_NORM: _batch_norm}
