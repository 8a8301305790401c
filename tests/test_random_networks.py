"""Random small networks in both formats: float files compute what torch does, integer files what they specify."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.graph.random_graphs import graphs
from toolchain.engine.observe import observe
from toolchain.engine.run import predict
from toolchain.formats.onnx import OnnxRunner, check_onnx, write_onnx
from toolchain.formats.tflite import TfliteRunner, check_tflite, write_tflite
from toolchain.graph import Graph, fold
from toolchain.quantization import Scheme, assign_params
from toolchain.validation.tensors import compare_tensors


def inputs_of(graph: Graph) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal(value.type.shape).astype(np.float32) for value in graph.inputs]


def both_formats_hold(graph: Graph) -> None:
    graph = fold(graph)
    inputs = inputs_of(graph)
    expected = predict(graph, [inputs])
    for runner in (OnnxRunner(write_onnx(graph), graph), TfliteRunner(write_tflite(graph))):
        for output, wanted in zip(runner.run(inputs), expected, strict=True):
            assert np.abs(output - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max()), runner.name
    ranges = {name: found.minmax() for name, found in observe(graph, [inputs]).items()}
    model = assign_params(graph, ranges, Scheme())
    onnx, tflite = write_onnx(model), write_tflite(model)
    assert check_onnx(onnx, model) == [] and check_tflite(tflite, model) == []
    runners = [OnnxRunner(onnx, model), TfliteRunner(tflite), TfliteRunner(tflite, kernels="reference")]
    for tensor in compare_tensors(model, runners, [inputs]):
        assert all(steps <= 1 for steps in tensor.op_steps.values()), tensor


@given(graphs())
@settings(max_examples=100)
def test_random_networks(graph):
    both_formats_hold(graph)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(graphs())
@settings(max_examples=2000)
def test_many_random_networks(graph):
    both_formats_hold(graph)
