"""RNN layers of torch through every executor: one node a layer and direction."""

from __future__ import annotations

import pytest

from tests.ops.harness import check, normal
from tests.ops.recurrent import HIDDEN, STEPS, Only, between, layer
from toolchain.graph import Op

X = normal(2, STEPS, 3)
KINDS = ["rnn tanh", "rnn relu"]
pytestmark = pytest.mark.parametrize("kind", KINDS)


def test_a_layer(kind):
    check(layer(kind), X, ops={Op.RNN})


def test_time_first(kind):
    graph = check(layer(kind, batch_first=False), normal(STEPS, 1, 3), ops={Op.RNN})
    assert sum(node.op is Op.RNN for node in graph.nodes) == 1


def test_two_bidirectional_layers(kind):
    graph = check(layer(kind, num_layers=2, bidirectional=True, dropout=0.3), X, ops={Op.RNN})
    hidden = [node for node in graph.nodes if node.op is Op.RNN]
    assert [node["reverse"] for node in hidden] == [False, True] * 2


def test_without_biases(kind):
    check(layer(kind, bias=False), X, ops={Op.RNN})


def test_states_that_are_given(kind):
    states = [normal(4, 2, HIDDEN, seed=seed, scale=0.7) for seed in range(1)]
    module = layer(kind, num_layers=2, bidirectional=True)
    check(Only(module, *range(2)), X, *states, ops={Op.RNN})


def test_between_layers_of_integers(kind):
    check(between(kind, bidirectional=True), X, ops={Op.RNN})


def test_no_time_to_go_through(kind):
    graph = check(layer(kind), normal(2, 1, 3))
    assert Op.RNN not in {node.op for node in graph.nodes}
