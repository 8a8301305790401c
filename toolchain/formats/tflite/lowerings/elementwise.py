"""What lowerings of one and two tensors have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import ACTIVATIONS, Emitter, Lowering
from toolchain.graph import Node


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
