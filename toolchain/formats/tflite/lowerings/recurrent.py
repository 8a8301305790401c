"""Recurrent layers as TFLite's UNIDIRECTIONAL_SEQUENCE_LSTM and _RNN.

The two keep their states from one call to the next. Each call sets them anew: an ADD writes what the layer starts from
to the variable tensors that hold them. There is no such operator for a gru, none that tells the cell state, and none
that takes any batch or float16: `with_operators` writes these out step by step.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import ActivationFunctionType as Activation
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.emitter import Emitter, Lowering
from toolchain.formats.tflite.flatbuffer import ABSENT, Operand
from toolchain.formats.tflite.kernels import rows_of
from toolchain.formats.tflite.layout import identity
from toolchain.graph import DType, Graph, Node, Op
from toolchain.graph.ops import GATES
from toolchain.quantization import QuantizedGraph, Reals
from toolchain.quantization.unrolled import unrolled

_NONLINEARITIES: Final = {"tanh": Activation.TANH, "relu": Activation.RELU}


def with_operators(model: QuantizedGraph, *, any_batch: bool) -> QuantizedGraph:
    """`model` with the recurrent layers written out that no operator computes."""
    everything = any_batch or model.reals is Reals.FLOAT16
    return unrolled(
        model, lambda node: everything or not _has_operator(model.graph, node, model.params), any_batch=any_batch
    )


def _has_operator(graph: Graph, node: Node, quantized: Collection[str]) -> bool:
    """Whether one operator computes `node`, whose biases must not be among the `quantized`."""
    if node.op is Op.GRU or any(name in quantized for name in node.inputs[3:5]):
        return False
    alike = [n for n in graph.consumers[node.inputs[1]] if n.inputs == node.inputs and n["reverse"] == node["reverse"]]
    return all(other.attributes.get("gives") != "cell" for other in alike)


def _lstm(emitter: Emitter, node: Node) -> None:
    """i, f, g and o in both."""
    source, *starts = emitter.inputs(node)
    weights = [_gate(emitter, node, node.inputs[1], gate) for gate in range(4)]
    recurrent_weights = [_gate(emitter, node, node.inputs[2], gate) for gate in range(4)]
    biases = [_bias(emitter, node, gate) for gate in range(4)]
    states = _states(emitter, node, source, starts, 2)
    # no peepholes, no projection
    inputs = [*weights, *recurrent_weights, *[ABSENT] * 3, *biases, *[ABSENT] * 2, *states]
    options = schema.UnidirectionalSequenceLSTMOptionsT(fusedActivationFunction=Activation.TANH)
    _through_time(emitter, node, Builtin.UNIDIRECTIONAL_SEQUENCE_LSTM, source, inputs, options)


def _rnn(emitter: Emitter, node: Node) -> None:
    source, *starts = emitter.inputs(node)
    weights = [_gate(emitter, node, name, 0) for name in node.inputs[1:3]]
    states = _states(emitter, node, source, starts, 1)
    options = schema.SequenceRNNOptionsT(fusedActivationFunction=_NONLINEARITIES[node["nonlinearity"]])
    inputs = [*weights, _bias(emitter, node, 0), *states]
    _through_time(emitter, node, Builtin.UNIDIRECTIONAL_SEQUENCE_RNN, source, inputs, options)


def _written_out(emitter: Emitter, node: Node) -> None:
    raise AssertionError(f"{node.output} is written out before it is laid out")


def _through_time(
    emitter: Emitter, node: Node, code: int, source: Operand, inputs: list[Operand], options: object
) -> None:
    """The operator; for a layer that goes backwards, between two that turn the time around."""
    result = emitter.result(node)
    if not node["reverse"]:
        emitter.emit(code, [source, *inputs], result, options)
        return
    turned, found = (
        emitter.builder.add_tensor(f"{node.output}/{name}", shape, DType.FLOAT32, None)
        for name, shape in (("turned", source.shape), ("states", result.shape))
    )
    backwards = emitter.vector(f"{node.output}/backwards", range(source.shape[1])[::-1])
    emitter.emit(Builtin.GATHER, [source, backwards], turned, schema.GatherOptionsT(axis=1))
    emitter.emit(code, [turned, *inputs], found, options)
    emitter.emit(Builtin.GATHER, [found, backwards], result, schema.GatherOptionsT(axis=1))


def _gate(emitter: Emitter, node: Node, name: str, gate: int) -> Operand:
    """One gate's rows of a weight, as float."""
    if GATES[node.op] == 1:
        return emitter.real(emitter.constant(name, identity(2)))
    rows = _rows(emitter, node, gate)
    params = emitter.numbers.params.get(name)
    values = np.ascontiguousarray(emitter.numbers.stored(name)[rows])
    named = f"{name}/rows_{rows.start}_{rows.stop}"
    return emitter.real(emitter.add_constant(named, values, params and rows_of(params, rows)))


def _bias(emitter: Emitter, node: Node, gate: int) -> Operand:
    """One gate's sum of the two biases, in float32 also where they are float16, which would round it once more."""
    bias, recurrent_bias = (emitter.numbers.stored(name) for name in node.inputs[3:5])
    rows = _rows(emitter, node, gate)
    total = bias[rows].astype(np.float32) + recurrent_bias[rows].astype(np.float32)
    named = f"{node.inputs[3]}+{node.inputs[4]}/rows_{rows.start}_{rows.stop}"
    return emitter.add_constant(named, total)


def _rows(emitter: Emitter, node: Node, gate: int) -> slice:
    size = emitter.graph.types[node.inputs[2]].shape[1]
    return slice(gate * size, (gate + 1) * size)


def _states(emitter: Emitter, node: Node, source: Operand, starts: list[Operand], count: int) -> list[Operand]:
    """So many variables `(N, H)`, set to what the layer starts from, or to zeros. A RESHAPE would not do: kernels
    outside XNNPACK leave its result where its input is."""
    shape = (source.shape[0], emitter.graph.types[node.inputs[2]].shape[1])
    zeros = emitter.add_constant(f"{node.output}/zeros", np.zeros(shape, np.float32))
    states = []
    for name, start in zip(("hidden", "cell"), starts or [zeros] * count, strict=False):
        state = emitter.builder.add_tensor(f"{node.output}/{name}", shape, DType.FLOAT32, None, is_variable=True)
        states.append(emitter.emit(Builtin.ADD, [start, zeros], state, schema.AddOptionsT()))
    return states


RECURRENT_LAYERS: dict[Op, Lowering] = {Op.LSTM: _lstm, Op.RNN: _rnn, Op.GRU: _written_out}
