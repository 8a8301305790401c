"""Random networks whose nodes compute in random number formats: int8, int16, int4 weights, float."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graph.random_graphs import graphs
from tests.test_random_networks import inputs_of
from toolchain.engine.observe import observe
from toolchain.formats.onnx import OnnxRunner, check_onnx, write_onnx
from toolchain.formats.tflite import TfliteRunner, check_tflite, write_tflite
from toolchain.graph import fold, parse_graph
from toolchain.quantization import NumberFormat, Scheme, assign_params
from toolchain.validation.tensors import compare_tensors

CHOICES = (NumberFormat.W8A8, NumberFormat.W8A16, NumberFormat.W4A8, NumberFormat.FLOAT32)


@given(graphs(), st.data())
@settings(max_examples=100)
def test_every_node_may_have_its_own_numbers(graph, data):
    graph = fold(graph)
    inputs = inputs_of(graph)
    ranges = {name: found.minmax() for name, found in observe(graph, [inputs]).items()}
    numbers = {node.output: data.draw(st.sampled_from(CHOICES), node.output) for node in graph.nodes}
    model = assign_params(graph, ranges, Scheme(), numbers=numbers)
    onnx, tflite = write_onnx(model), write_tflite(model)
    assert check_onnx(onnx, model) == [] and check_tflite(tflite, model) == []
    runners = [OnnxRunner(onnx, model), TfliteRunner(tflite)]
    for tensor in compare_tensors(model, runners, [inputs]):
        assert all(steps <= 1 for steps in tensor.op_steps.values()), tensor


FLATTENED = parse_graph(
    """
input x: float32[1,2,4,5]
constant c.weight: float32[3,2,1,1]
constant d.weight: float32[6,60]
c = conv2d(x, c.weight)
f = reshape(c) shape=(1,60)
d = linear(f, d.weight)
output d
"""
)


@pytest.mark.parametrize("of_linear", CHOICES)
@pytest.mark.parametrize("of_convolution", CHOICES)
def test_a_flattened_picture_may_change_its_type_on_the_way_to_a_layer(of_convolution, of_linear):
    random = np.random.default_rng(0)
    constants = {name: random.normal(size=FLATTENED.types[name].shape).astype("f") for name in FLATTENED.constants}
    graph = FLATTENED.with_constants(constants)
    inputs = (random.normal(size=(1, 2, 4, 5)).astype("f"),)
    ranges = {name: found.minmax() for name, found in observe(graph, [inputs]).items()}
    model = assign_params(graph, ranges, Scheme(), numbers={"c": of_convolution, "d": of_linear})
    tflite = write_tflite(model)
    assert check_tflite(tflite, model) == [] and check_onnx(write_onnx(model), model) == []
    (found,) = compare_tensors(model, [TfliteRunner(tflite)], [inputs])[-1:]
    # two layers of int4 weights leave 15 dB, (3/7)^2 / 12 of the signal each; weights in another order none
    assert found.sqnr_db > 10 and all(steps <= 1 for steps in found.op_steps.values())
