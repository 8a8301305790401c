"""Activations as TFLite operators. Three have none and are written out, in float:

softplus(x)  max(x, 0) - log(sigmoid(|x|)),  of which nothing overflows
mish(x)      x n / (n + 2)  for  n = e^x (e^x + 2) = (1 + e^x)^2 - 1,  x at most 20 inside
erf(x)       tanh(x p(x^2)),  x within [-4, 4],  p fitted to 6e-8 of erf
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.formats.tflite.lowerings.arithmetic import pair, scalar
from toolchain.formats.tflite.lowerings.elementwise import unary
from toolchain.graph import Node, Op

_MISH_IS_LINEAR = 20.0
_ERF_IS_ONE = 4.0
_ERF = (
    *(1.1283797054987565, 0.10276548115395234, -0.00018438292730854188, -0.0006257202967486341),
    *(8.971288183311568e-05, -5.985742184799747e-06, 1.5896334745746366e-07),
)
"""p(t) by rising powers, the least largest error of tanh(x p(x^2)) over [0, 4]."""


class _Expression:
    """Operators of one node, each with a float tensor of its own but the last."""

    def __init__(self, emitter: Emitter, node: Node) -> None:
        self._emitter, self._node = emitter, node
        (self.source,) = emitter.inputs(node)
        self._count = 0

    def add(self, left: Operand, right: Operand | float) -> Operand:
        return self.apply(Builtin.ADD, [left, self.number(right)], schema.AddOptionsT())

    def mul(self, left: Operand, right: Operand | float) -> Operand:
        return self.apply(Builtin.MUL, [left, self.number(right)], schema.MulOptionsT())

    def minimum(self, left: Operand, right: float) -> Operand:
        return self.apply(Builtin.MINIMUM, [left, self.number(right)], schema.MaximumMinimumOptionsT())

    def maximum(self, left: Operand, right: float) -> Operand:
        return self.apply(Builtin.MAXIMUM, [left, self.number(right)], schema.MaximumMinimumOptionsT())

    def apply(self, code: int, inputs: Sequence[Operand], options: Any = None) -> Operand:
        target = self._emitter.temporary(self._name(), self.source.shape, self.source)
        return self._emitter.emit(code, inputs, target, options)

    def finish(self, code: int, inputs: Sequence[Operand], options: Any = None) -> None:
        """The last operator, whose result is the node's."""
        self._emitter.emit(code, inputs, self._emitter.result(self._node), options)

    def number(self, value: Operand | float) -> Operand:
        return value if isinstance(value, Operand) else scalar(self._emitter, self._name(), value, self.source)

    def _name(self) -> str:
        self._count += 1
        return f"{self._node.output}/{self._count}"


def _lower_softplus(emitter: Emitter, node: Node) -> None:
    e = _Expression(emitter, node)
    magnitude = e.apply(Builtin.ABS, [e.source], schema.AbsOptionsT())
    logarithm = e.apply(Builtin.LOG, [e.apply(Builtin.LOGISTIC, [magnitude])])
    e.finish(Builtin.SUB, [e.apply(Builtin.RELU, [e.source]), logarithm], schema.SubOptionsT())


def _lower_mish(emitter: Emitter, node: Node) -> None:
    e = _Expression(emitter, node)
    power = e.apply(Builtin.EXP, [e.minimum(e.source, _MISH_IS_LINEAR)], schema.ExpOptionsT())
    above = e.mul(power, e.add(power, 2.0))
    share = e.apply(Builtin.DIV, [above, e.add(above, 2.0)], schema.DivOptionsT())
    e.finish(Builtin.MUL, [e.source, share], schema.MulOptionsT())


def _lower_erf(emitter: Emitter, node: Node) -> None:
    e = _Expression(emitter, node)
    x = e.minimum(e.maximum(e.source, -_ERF_IS_ONE), _ERF_IS_ONE)
    square = e.mul(x, x)
    *lower, highest = _ERF
    value = e.add(e.mul(square, highest), lower.pop())
    while lower:
        value = e.add(e.mul(value, square), lower.pop())
    e.finish(Builtin.TANH, [e.mul(x, value)])


ACTIVATIONS: dict[Op, Lowering] = {
    Op.PRELU: pair(Builtin.PRELU, lambda: None),
    Op.ELU: unary(Builtin.ELU),
    Op.GELU: unary(Builtin.GELU, lambda node: schema.GeluOptionsT(approximate=node["approximate"])),
    Op.SOFTPLUS: _lower_softplus,
    Op.MISH: _lower_mish,
    Op.ERF: _lower_erf,
    Op.LOG_SOFTMAX: unary(Builtin.LOG_SOFTMAX, lambda node: schema.LogSoftmaxOptionsT()),
}
