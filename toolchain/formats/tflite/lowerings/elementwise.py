"""Elementwise ops and softmax as TFLite operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import ACTIVATIONS, Emitter, Lowering
from toolchain.graph import Node
from toolchain.graph.fold import batch_norm_affine


def unary(code: int, make_options: Callable[[Node], Any] = lambda node: None) -> Lowering:
    """A lowering to the operator `code`, of one input, and `make_options(node)`."""
    return partial(_lower_unary, code, make_options)


def binary(code: int, make_options: Callable[..., Any]) -> Lowering:
    """A lowering to the operator `code` of two inputs and a fused activation."""
    return partial(_lower_binary, code, make_options)


def rectifier(code: int, activation: str) -> Lowering:
    """A lowering to the operator `code` in float, in int8 to the addition of zero with a fused activation.

    XNNPACK has no int8 kernel for RELU and RELU6, and what runs in its place takes 200 times as long as its
    ADD; the RELU6 of tflite-micro ignores that its output has a scale of its own.
    """
    return partial(_lower_rectifier, code, activation)


def _lower_rectifier(code: int, activation: str, emitter: Emitter, node: Node) -> None:
    (source,) = emitter.inputs(node)
    if source.params is None:
        emitter.emit(code, [source], emitter.result(node))
        return
    values = source.params.zero_point.astype(source.dtype.numpy).reshape([1] * len(source.shape))
    zero = emitter.add_constant(f"{node.output}/zero", values, source.params)
    options = schema.AddOptionsT(fusedActivationFunction=ACTIVATIONS[activation])
    emitter.emit(Builtin.ADD, [source, zero], emitter.result(node), options)


def _lower_unary(code: int, make_options: Callable[[Node], Any], emitter: Emitter, node: Node) -> None:
    emitter.emit(code, emitter.inputs(node), emitter.result(node), make_options(node))


def _lower_binary(code: int, make_options: Callable[..., Any], emitter: Emitter, node: Node) -> None:
    options = make_options(fusedActivationFunction=ACTIVATIONS[node["activation"]])
    emitter.emit(code, emitter.inputs(node), emitter.result(node), options)


def lower_batch_norm(emitter: Emitter, node: Node) -> None:
    """MUL and ADD by constants, in float: a batch norm that no layer before it could take in."""
    (source,) = emitter.inputs(node)
    channel = emitter.plan.layouts[node.output].axis(1)
    shape = [-1 if axis == channel else 1 for axis in range(len(source.shape))]
    affine = batch_norm_affine(emitter.graph, node)
    multiplier, offset = (values.astype(np.float32).reshape(shape) for values in affine)
    factor = emitter.add_constant(f"{node.output}/multiplier", multiplier)
    summand = emitter.add_constant(f"{node.output}/offset", offset)
    scaled = emitter.temporary(f"{node.output}/scaled", source.shape, source)
    emitter.emit(Builtin.MUL, [source, factor], scaled, schema.MulOptionsT())
    emitter.emit(Builtin.ADD, [scaled, summand], emitter.result(node), schema.AddOptionsT())
