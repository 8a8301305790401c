"""A node written out as several operators, each with a tensor of its own but the last, which makes the node's
result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.lowerings.arithmetic import scalar
from toolchain.formats.tflite.lowerings.moves import average, read_layout
from toolchain.graph import Node


class Formula:
    """Operators of one node, in float; a number among the operands becomes a constant."""

    def __init__(self, emitter: Emitter, node: Node) -> None:
        self._emitter, self._node = emitter, node
        self.source, *self.parameters = emitter.inputs(node)
        self._count = 0

    def add(self, left: Operand, right: Operand | float) -> Operand:
        return self.apply(Builtin.ADD, [left, right], schema.AddOptionsT())

    def sub(self, left: Operand, right: Operand | float) -> Operand:
        return self.apply(Builtin.SUB, [left, right], schema.SubOptionsT())

    def mul(self, left: Operand, right: Operand | float) -> Operand:
        return self.apply(Builtin.MUL, [left, right], schema.MulOptionsT())

    def minimum(self, left: Operand, right: float) -> Operand:
        return self.apply(Builtin.MINIMUM, [left, right], schema.MaximumMinimumOptionsT())

    def maximum(self, left: Operand, right: float) -> Operand:
        return self.apply(Builtin.MAXIMUM, [left, right], schema.MaximumMinimumOptionsT())

    def mean(self, operand: Operand, axes: Sequence[int]) -> Operand:
        """Over the logical `axes` of the node's first input, which are kept."""
        layout = read_layout(self._emitter, self._node)
        physical = sorted(layout.axis(axis) for axis in axes)
        shape = [1 if axis in physical else size for axis, size in enumerate(operand.shape)]
        return average(self._emitter, operand, physical, self._target(shape), keep_axes=True)

    def apply(self, code: int, inputs: Sequence[Operand | float], options: Any = None) -> Operand:
        """One operator, of the shape that its operands broadcast to."""
        operands = self._operands(inputs)
        target = self._target(np.broadcast_shapes(*(operand.shape for operand in operands)))
        return self._emitter.emit(code, operands, target, options)

    def finish(self, code: int, inputs: Sequence[Operand | float], options: Any = None) -> None:
        """The last operator."""
        self._emitter.emit(code, self._operands(inputs), self._emitter.result(self._node), options)

    def _operands(self, inputs: Sequence[Operand | float]) -> list[Operand]:
        return [
            given if isinstance(given, Operand) else scalar(self._emitter, self._name(), given, self.source)
            for given in inputs
        ]

    def _target(self, shape: Sequence[int]) -> Operand:
        return self._emitter.temporary(self._name(), shape, self.source)

    def _name(self) -> str:
        self._count += 1
        return f"{self._node.output}/{self._count}"
