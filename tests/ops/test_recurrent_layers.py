"""What is alike in LSTM, GRU and RNN: the operators they become, written out or not, and cells in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.ops.harness import assert_close, check, check_int8, eager, normal, operators, quantized, traced
from tests.ops.recurrent import HIDDEN, STEPS, Only, between, layer
from toolchain.engine.run import predict
from toolchain.engine.tracing.tracer import trace
from toolchain.errors import UnsupportedError
from toolchain.formats.onnx import OnnxRunner, check_onnx, read_onnx, write_onnx
from toolchain.formats.tflite import TfliteRunner, check_tflite, read_tflite, write_tflite
from toolchain.graph import RECURRENT, Op, fold
from toolchain.graph.recurrence import unroll
from toolchain.quantization import NUMBERS, NumberFormat, Scheme, dequantize, quantize

KINDS = ("lstm", "gru", "rnn tanh", "rnn relu")
CELLS = {
    "lstm": lambda **options: nn.LSTMCell(3, 5, **options),
    "gru": lambda **options: nn.GRUCell(3, 5, **options),
    "rnn tanh": lambda **options: nn.RNNCell(3, 5, **options),
    "rnn relu": lambda **options: nn.RNNCell(3, 5, nonlinearity="relu", **options),
}
X = normal(1, STEPS, 3)


class Loop(nn.Module):
    """A cell called step by step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state = None
        hidden = []
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
            hidden.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(hidden, 1)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_loop_over_a_cell(kind, bias):
    torch.manual_seed(3)
    check(Loop(CELLS[kind](bias=bias).eval()), normal(2, 3, 3))


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_result_at_every_call(kind, kernels):
    """No state is kept from one call to the next."""
    module = between(kind)
    graph = traced(module, X)
    for model in (graph, quantized(graph, X)):
        given = X if model is graph else quantize(X, model.params[model.graph.input_names[0]])
        for runner in (OnnxRunner(write_onnx(model), model), TfliteRunner(write_tflite(model), kernels=kernels)):
            first = runner.run([given])
            runner.run([np.zeros_like(given)])
            for one, other in zip(first, runner.run([given]), strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("kind", "onnx", "tflite"), [("lstm", "LSTM", "LSTM"), ("gru", "GRU", ""), ("rnn tanh", "RNN", "RNN")]
)
def test_one_operator_a_layer_and_direction(kind, onnx, tflite):
    graph = traced(Only(layer(kind, num_layers=2, bidirectional=True), 0), X)
    assert read_onnx(write_onnx(graph)).ops[onnx] == 4
    found = operators(graph)
    assert found.get(f"UNIDIRECTIONAL_SEQUENCE_{tflite}", 0) == (4 if tflite else 0)


def test_hidden_and_cell_states_come_from_one_operator():
    graph = traced(layer("lstm"), X)
    assert sum(node.op is Op.LSTM for node in graph.nodes) == 2
    assert read_onnx(write_onnx(graph)).ops["LSTM"] == 1
    assert operators(graph)["FULLY_CONNECTED"] == 1 + STEPS


@pytest.mark.parametrize("kind", KINDS)
def test_an_int8_file_holds_int8_weights_and_a_float_layer(kind):
    graph = traced(between(kind), X)
    model = check_int8(graph, X)
    (node,) = (node for node in graph.nodes if node.op in RECURRENT)
    assert model.float_nodes == {
        node.output: f"the recurrence computes in float: onnxruntime's {node.op} has no integer kernel"
    }
    for name in node.inputs[1:3]:
        assert (model.params[name].dtype, model.params[name].axis) == ("int8", 0)
        stored = [facts for facts in read_tflite(write_tflite(model)).tensors.values() if facts.name.startswith(name)]
        assert {facts.dtype for facts in stored if facts.is_constant} == {"int8"}
        assert read_onnx(write_onnx(model)).tensors[name].dtype == "int8"


@pytest.mark.parametrize("numbers", sorted(set(NumberFormat) - {NumberFormat.FLOAT32, NumberFormat.W8A8}))
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_every_number_format(kind, numbers):
    module = between(kind, hidden=8, bidirectional=True)
    graph = traced(module, X)
    model = quantized(graph, X, scheme=Scheme().with_numbers(numbers))
    assert check_onnx(write_onnx(model), model) == [] and check_tflite(write_tflite(model), model) == []
    if NUMBERS[numbers].activation is None:
        reals = {name: dequantize(q, model.params[name]) for name, q in model.integers.items()}
        others = {name: model.stored_values(name).astype(np.float32) for name in set(graph.constants) - set(reals)}
        (wanted,) = predict(model.graph.with_constants(reals | others), [(X,)])
        for runner in (OnnxRunner(write_onnx(model), model), TfliteRunner(write_tflite(model))):
            assert np.abs(runner.run([X])[0] - wanted).max() <= ROUNDING[numbers] * np.abs(wanted).max(), runner.name


# a linear layer of integer weights quantizes what it reads to 255 steps; float16 has 11 bits at each of 10 ops a step
ROUNDING = {
    **dict.fromkeys((NumberFormat.DYNAMIC_INT8, NumberFormat.W4, NumberFormat.W4_BLOCK), 4 / 255),
    NumberFormat.FLOAT16_WEIGHTS: 1e-5,
    NumberFormat.FLOAT16: 10 * STEPS / 2**11,
}


def test_other_readers_of_a_weight_find_it_as_it_is():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer("lstm")

        def forward(self, x):
            weight = self.layer.weight_hh_l0
            return self.layer(x)[0] * weight[:1].abs() + weight[1]

    check(Shared(), X, ops={Op.LSTM})


@pytest.mark.parametrize("write", [write_onnx, write_tflite])
def test_one_size_however_many_steps(write):
    short, long = (write(traced(between("lstm"), normal(1, steps, 3))) for steps in (2, 50))
    assert abs(len(long) - len(short)) <= 64


def test_time_first_needs_no_transpose_for_one_sequence():
    counted = operators(traced(layer("lstm", num_layers=2, batch_first=False), normal(STEPS, 1, 3)))
    assert "TRANSPOSE" not in counted


# ---- written out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_layers_can_be_written_out_in_integers(kind):
    module = between(kind, num_layers=2, bidirectional=True)
    graph = fold(trace(module, (X,), unroll_recurrent=True))
    assert not {node.op for node in graph.nodes} & RECURRENT
    assert_close(predict(graph, [(X,)]), eager(module, X), "written out", 1e-5)
    model = check_int8(graph, X)
    assert not model.float_nodes
    weights = {name for node in graph.nodes if node.op is Op.LINEAR for name in node.inputs[1:2]}
    assert all(model.params[name].axis == 0 for name in weights)


def test_the_last_step_alone_joins_no_steps():
    graph = trace(Only(layer("gru"), 1), (X,), unroll_recurrent=True)
    assert Op.CONCAT not in {node.op for node in graph.nodes}


@pytest.mark.parametrize("kind", KINDS)
def test_writing_out_keeps_every_name(kind):
    graph = traced(layer(kind, num_layers=2, bidirectional=True), X)
    found = unroll(graph)
    assert set(graph.types) <= set(found.types)
    assert_close(predict(found, [(X,)]), predict(graph, [(X,)]), "written out", 1e-5)


def test_what_is_not_wanted_stays():
    graph = traced(layer("gru", num_layers=2), X)
    first, second = (node.output for node in graph.nodes if node.op is Op.GRU)
    found = unroll(graph, lambda node: node.output == second)
    assert [node.output for node in found.nodes if node.op is Op.GRU] == [first]
    assert unroll(graph, lambda node: False) is graph


def test_the_weights_of_all_steps_are_stored_once():
    module = layer("gru", 32, 64)
    short, long = (len(write_tflite(traced(module, normal(1, steps, 32)))) for steps in (2, 6))
    assert long - short < module.weight_hh_l0.numel() * 4


def test_projected_states_are_refused_in_words():
    with pytest.raises(UnsupportedError, match="proj_size=0"):
        traced(nn.LSTM(3, HIDDEN, proj_size=2), normal(STEPS, 1, 3))
