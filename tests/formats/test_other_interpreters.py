"""The same .tflite in TensorFlow's own interpreter gives the same integers as in LiteRT."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.op_cases import case_graph, case_inputs
from toolchain.engine.run import predict
from toolchain.formats.tflite import TfliteRunner, write_tflite
from toolchain.graph import fold, parse_graph
from toolchain.quantization import Scheme, assign_params

TEXT = """
input x: float32[1,3,9,9]
constant a.weight: float32[8,3,3,3]
constant a.bias: float32[8]
constant b.weight: float32[8,1,3,3]
constant b.bias: float32[8]
constant fc.weight: float32[5,8]
constant fc.bias: float32[5]
a = conv2d(x, a.weight, a.bias) stride=(2,2) padding=(1,1,1,1) activation=relu6
b = depthwise_conv2d(a, b.weight, b.bias) padding=(1,1,1,1)
c = add(a, b) activation=relu
m = mean(c) axes=(2,3)
y = linear(m, fc.weight, fc.bias)
s = softmax(y) axis=1
output s
"""


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_tensorflow_agrees_with_litert(kernels):
    pytest.importorskip("tensorflow", reason="extra `tensorflow` is not installed")
    graph = fold(parse_graph(TEXT))
    model = assign_params(graph, dict.fromkeys(graph.activations, (-3.0, 3.0)), Scheme())
    content = write_tflite(model)
    inputs = [np.random.default_rng(0).integers(-128, 128, (1, 3, 9, 9)).astype(np.int8)]
    ours = TfliteRunner(content, kernels=kernels).run(inputs)[0]
    theirs = TfliteRunner(content, kernels=kernels, package="tensorflow").run(inputs)[0]
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
@pytest.mark.parametrize("case", ["lstm", "lstm backwards", "rnn backwards"])
def test_tensorflow_starts_recurrent_layers_anew_at_every_call(case, kernels):
    pytest.importorskip("tensorflow", reason="extra `tensorflow` is not installed")
    graph = case_graph(case)
    inputs = case_inputs(graph)
    runner = TfliteRunner(write_tflite(graph), kernels=kernels, package="tensorflow")
    first, second = (runner.run(inputs)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, predict(graph, [inputs])[0], rtol=0, atol=1e-5)
