"""Activations as TFLite operators. Three have none and are written out, in float:

softplus(x)  max(x, 0) - log(sigmoid(|x|)),  of which nothing overflows
mish(x)      x n / (n + 2)  for  n = e^x (e^x + 2) = (1 + e^x)^2 - 1,  x at most 20 inside
erf(x)       tanh(x p(x^2)),  x within [-4, 4],  p fitted to 6e-8 of erf
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.lowerings.arithmetic import pair
from toolchain.formats.tflite.lowerings.elementwise import rectifier, unary
from toolchain.formats.tflite.lowerings.formula import Formula
from toolchain.graph import Node, Op

_MISH_IS_LINEAR = 20.0
_ERF_IS_ONE = 4.0
_ERF = (
    *(1.1283797054987565, 0.10276548115395234, -0.00018438292730854188, -0.0006257202967486341),
    *(8.971288183311568e-05, -5.985742184799747e-06, 1.5896334745746366e-07),
)
"""p(t) by rising powers, the least largest error of tanh(x p(x^2)) over [0, 4]."""


def _lower_softplus(emitter: Emitter, node: Node) -> None:
    e = Formula(emitter, node)
    magnitude = e.apply(Builtin.ABS, [e.source], schema.AbsOptionsT())
    logarithm = e.apply(Builtin.LOG, [e.apply(Builtin.LOGISTIC, [magnitude])])
    e.finish(Builtin.SUB, [e.apply(Builtin.RELU, [e.source]), logarithm], schema.SubOptionsT())


def _lower_mish(emitter: Emitter, node: Node) -> None:
    e = Formula(emitter, node)
    power = e.apply(Builtin.EXP, [e.minimum(e.source, _MISH_IS_LINEAR)], schema.ExpOptionsT())
    above = e.mul(power, e.add(power, 2.0))
    share = e.apply(Builtin.DIV, [above, e.add(above, 2.0)], schema.DivOptionsT())
    e.finish(Builtin.MUL, [e.source, share], schema.MulOptionsT())


def _lower_erf(emitter: Emitter, node: Node) -> None:
    e = Formula(emitter, node)
    x = e.minimum(e.maximum(e.source, -_ERF_IS_ONE), _ERF_IS_ONE)
    square = e.mul(x, x)
    *lower, highest = _ERF
    value = e.add(e.mul(square, highest), lower.pop())
    while lower:
        value = e.add(e.mul(value, square), lower.pop())
    e.finish(Builtin.TANH, [e.mul(x, value)])


ACTIVATIONS: dict[Op, Lowering] = {
    Op.RELU: rectifier(Builtin.RELU, "relu"),
    Op.RELU6: rectifier(Builtin.RELU6, "relu6"),
    Op.LEAKY_RELU: unary(Builtin.LEAKY_RELU, lambda node: schema.LeakyReluOptionsT(alpha=node["slope"])),
    Op.SIGMOID: unary(Builtin.LOGISTIC),
    Op.TANH: unary(Builtin.TANH),
    Op.HARDSWISH: unary(Builtin.HARD_SWISH, lambda node: schema.HardSwishOptionsT()),
    Op.SOFTMAX: unary(Builtin.SOFTMAX, lambda node: schema.SoftmaxOptionsT(beta=1.0)),
    Op.PRELU: pair(Builtin.PRELU, lambda: None),
    Op.ELU: unary(Builtin.ELU),
    Op.GELU: unary(Builtin.GELU, lambda node: schema.GeluOptionsT(approximate=node["approximate"])),
    Op.SOFTPLUS: _lower_softplus,
    Op.MISH: _lower_mish,
    Op.ERF: _lower_erf,
    Op.LOG_SOFTMAX: unary(Builtin.LOG_SOFTMAX, lambda node: schema.LogSoftmaxOptionsT()),
}
