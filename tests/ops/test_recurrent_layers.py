"""LSTM, GRU and RNN of torch, layers and cells, through every executor: they are traced step by step into plain ops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.ops.harness import check, normal, operators, quantized, traced
from toolchain.errors import UnsupportedError
from toolchain.formats.onnx import OnnxRunner, write_onnx
from toolchain.formats.tflite import TfliteRunner, write_tflite
from toolchain.graph import Op
from toolchain.quantization import quantize

STEPS = 4
LAYERS = {
    "lstm": lambda **options: nn.LSTM(3, 5, **options),
    "gru": lambda **options: nn.GRU(3, 5, **options),
    "rnn tanh": lambda **options: nn.RNN(3, 5, **options),
    "rnn relu": lambda **options: nn.RNN(3, 5, nonlinearity="relu", **options),
}
CELLS = {
    "lstm": lambda **options: nn.LSTMCell(3, 5, **options),
    "gru": lambda **options: nn.GRUCell(3, 5, **options),
    "rnn tanh": lambda **options: nn.RNNCell(3, 5, **options),
    "rnn relu": lambda **options: nn.RNNCell(3, 5, nonlinearity="relu", **options),
}


class Only(nn.Module):
    """Some of the results of a layer: 0 the sequence, 1 the last hidden state, 2 the last cell state."""

    def __init__(self, layer: nn.Module, *kept: int) -> None:
        super().__init__()
        self.layer, self.kept = layer, kept

    def forward(self, x, *states):
        given = states if len(states) == 2 else (states[0] if states else None)
        sequence, last = self.layer(x, given)
        results = (sequence, *(last if isinstance(last, tuple) else (last,)))
        return tuple(results[at] for at in self.kept)


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


def seeded(make, **options) -> nn.Module:
    torch.manual_seed(3)
    return make(**options).eval()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer(kind, batch_first):
    shape = (1, STEPS, 3) if batch_first else (STEPS, 1, 3)
    check(seeded(LAYERS[kind], batch_first=batch_first), normal(*shape))


@pytest.mark.parametrize("kind", LAYERS)
def test_two_bidirectional_layers(kind):
    module = seeded(LAYERS[kind], num_layers=2, bidirectional=True, dropout=0.3)
    check(module, normal(STEPS, 2, 3))


@pytest.mark.parametrize("kind", LAYERS)
def test_without_biases(kind):
    check(seeded(LAYERS[kind], bias=False, batch_first=True), normal(2, STEPS, 3))


@pytest.mark.parametrize("kind", LAYERS)
def test_states_that_are_given(kind):
    states = [normal(4, 2, 5, seed=seed, scale=0.7) for seed in range(2 if kind == "lstm" else 1)]
    module = seeded(LAYERS[kind], num_layers=2, bidirectional=True, batch_first=True)
    check(Only(module, *range(len(states) + 1)), normal(2, STEPS, 3), *states)


@pytest.mark.parametrize("kept", [(0,), (1,), (2,), (2, 1)])
def test_results_that_are_not_read_leave_nothing_behind(kept):
    module = Only(seeded(LAYERS["lstm"], num_layers=2, batch_first=True), *kept)
    graph = check(module, normal(1, STEPS, 3))
    read = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    assert {node.output for node in graph.nodes} <= read


def test_a_sequence_of_one_step():
    check(seeded(LAYERS["lstm"], batch_first=True), normal(2, 1, 3))


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_loop_over_a_cell(kind, bias):
    check(Loop(seeded(CELLS[kind], bias=bias)), normal(2, 3, 3))


@pytest.mark.parametrize("kind", LAYERS)
def test_the_same_result_at_every_call(kind):
    """No state is kept from one call to the next."""
    module, x = seeded(LAYERS[kind], batch_first=True), normal(1, STEPS, 3)
    graph = traced(module, x)
    for model in (graph, quantized(graph, x)):
        for runner in (OnnxRunner(write_onnx(model), model), TfliteRunner(write_tflite(model))):
            given = x if model is graph else runner_input(model, x)
            first = runner.run([given])
            runner.run([np.zeros_like(given)])
            for one, other in zip(first, runner.run([given]), strict=True):
                np.testing.assert_array_equal(one, other)


def runner_input(model, x: np.ndarray) -> np.ndarray:
    return quantize(x, model.params[model.graph.input_names[0]])


@pytest.mark.parametrize("write", [write_onnx, write_tflite])
def test_the_weights_of_all_steps_are_stored_once(write):
    layer = seeded(lambda: nn.LSTM(32, 64, batch_first=True))
    short, long = (len(write(traced(layer, normal(1, steps, 32)))) for steps in (2, 6))
    assert long - short < layer.weight_hh_l0.numel() * 4


def test_time_first_needs_no_transpose_for_one_sequence():
    counted = operators(traced(seeded(LAYERS["gru"], num_layers=2), normal(STEPS, 1, 3)))
    assert "TRANSPOSE" not in counted


def test_an_int8_layer_has_no_float_inside():
    graph = traced(seeded(LAYERS["lstm"], batch_first=True), normal(1, STEPS, 3))
    model = quantized(graph, normal(1, STEPS, 3))
    assert not model.float_nodes
    weights = {name for node in graph.nodes if node.op is Op.LINEAR for name in node.inputs[1:2]}
    assert all(model.params[name].axis == 0 for name in weights)


def test_projected_states_are_refused_in_words():
    with pytest.raises(UnsupportedError, match="proj_size=0"):
        traced(nn.LSTM(3, 5, proj_size=2), normal(STEPS, 1, 3))
