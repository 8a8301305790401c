"""Elementwise ops between convolutions of sequences, as ops over images."""

from __future__ import annotations

import numpy as np

from tests.graph.op_cases import case_inputs
from toolchain.engine.run import predict
from toolchain.graph import Op, fold, parse_graph

TEXT = """
input x: float32[2,4,1,7]
input s: float32[2,4,7]
constant c: float32[4,1]
a = reshape(x) shape=(2,4,7)
b = {op}
y = reshape(b) shape=(2,4,1,7)
z = tanh(y)
output {outputs}
"""


def folded(op: str, outputs: str = "z"):
    graph = parse_graph(TEXT.format(op=op, outputs=outputs))
    found, inputs = fold(graph), case_inputs(graph)
    for one, other in zip(predict(found, [inputs]), predict(graph, [inputs]), strict=True):
        np.testing.assert_array_equal(one, other)
    return [node.op for node in found.nodes]


def test_functions_of_sequences_that_were_images_are_functions_of_the_images():
    assert folded("sigmoid(a)") == [Op.SIGMOID, Op.TANH]
    assert folded("add(a, a)") == [Op.ADD, Op.TANH]
    assert folded("mul(c, a)") == [Op.MUL, Op.TANH]


def test_one_that_is_also_an_output_is_reshaped_for_it():
    assert folded("sigmoid(a)", "z, b") == [Op.SIGMOID, Op.RESHAPE, Op.TANH]


def test_a_sequence_that_was_none_stays_one():
    assert folded("add(a, s)") == [Op.RESHAPE, Op.ADD, Op.RESHAPE, Op.TANH]


def test_the_axis_of_a_softmax_is_not_moved():
    assert folded("softmax(a) axis=1") == [Op.RESHAPE, Op.SOFTMAX, Op.RESHAPE, Op.TANH]
