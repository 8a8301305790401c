"""Random networks whose nodes compute in random number formats: int8, int16, int4 weights, float."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graph.random_graphs import graphs
from tests.test_random_networks import inputs_of
from toolchain.engine.observe import observe
from toolchain.formats.onnx import OnnxRunner, check_onnx, write_onnx
from toolchain.formats.tflite import TfliteRunner, check_tflite, write_tflite
from toolchain.graph import fold
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
