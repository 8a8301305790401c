"""Bias correction: after it, a layer's mean error over what was measured is within the bias's step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toolchain.engine.observe import observe
from toolchain.engine.run import as_tensors, run
from toolchain.graph import Graph, Op, parse_graph
from toolchain.quantization import QuantizedGraph, Scheme, assign_params, dequantize
from toolchain.quantization.correct import correct_biases

RNG = np.random.default_rng(3)

IMAGES = "input x: float32[8,6,5,5]\n"


def layer(given: str, weight: str, features: int, call: str) -> str:
    return f"{given}constant w: float32[{weight}]\nconstant b: float32[{features}]\ny = {call}\noutput y"


LAYERS = {
    "conv": layer(IMAGES, "4,6,1,1", 4, "conv2d(x, w, b)"),
    "grouped": layer(IMAGES, "4,3,1,1", 4, "conv2d(x, w, b) groups=2"),
    "depthwise": layer(IMAGES, "6,1,1,1", 6, "depthwise_conv2d(x, w, b)"),
    "depthwise with multiplier": layer(IMAGES, "18,1,1,1", 18, "depthwise_conv2d(x, w, b)"),
    "linear": layer("input x: float32[40,6]\n", "5,6", 5, "linear(x, w, b)"),
    "linear over rows": layer("input x: float32[8,7,6]\n", "5,6", 5, "linear(x, w, b)"),
    "linear over images": layer("input x: float32[2,6,5,6]\n", "5,6", 5, "linear(x, w, b)"),
}


def samples(graph: Graph) -> np.ndarray:
    """Values whose channels, along every axis, have means of their own."""
    shape = graph.inputs[0].type.shape
    offsets = sum(
        np.arange(size).reshape([-1 if a == axis else 1 for a in range(len(shape))]) for axis, size in enumerate(shape)
    )
    return (offsets + RNG.standard_normal(shape)).astype(np.float32)


def quantized(graph: Graph, array: np.ndarray) -> tuple[QuantizedGraph, QuantizedGraph]:
    """Before and after correction, per tensor with unequal channels: where rounding shifts most."""
    scales = np.geomspace(0.01, 1, len(graph.constants["w"])).reshape(-1, *[1] * (graph.constants["w"].ndim - 1))
    graph = graph.with_constants({"w": (graph.constants["w"] * scales).astype(np.float32)})
    found = observe(graph, [(array,)])
    before = assign_params(graph, {n: s.minmax() for n, s in found.items()}, Scheme(weight_granularity="per_tensor"))
    return before, correct_biases(before, {n: s.means for n, s in found.items()})


def mean_error(model: QuantizedGraph, reference: Graph, array: np.ndarray) -> np.ndarray:
    """Mean over everything but the features, with rounded weights and exact activations."""
    constants = {name: dequantize(q, model.params[name]) for name, q in model.integers.items()}
    given = [torch.from_numpy(array).double()]
    (rounded,) = run(model.graph, given, constants=as_tensors(constants, torch.float64))
    (exact,) = run(reference, given, constants=as_tensors(reference.constants, torch.float64))
    axis = 1 if rounded.dim() == 4 and model.graph.nodes[0].op is not Op.LINEAR else rounded.dim() - 1
    return (rounded - exact).mean([a for a in range(rounded.dim()) if a != axis]).numpy()


@pytest.mark.parametrize("case", LAYERS)
def test_the_mean_error_is_within_half_a_step_of_the_bias(case):
    graph = parse_graph(LAYERS[case])
    array = samples(graph)
    before, after = quantized(graph, array)
    exact = before.graph
    # half a step for the bias's own rounding; the means were measured in float32
    tolerance = 0.5 * after.params["b"].step + 1e-6 * float(np.abs(array).max()) * 6
    assert np.abs(mean_error(after, exact, array)).max() <= tolerance
    assert np.abs(mean_error(before, exact, array)).max() > 10 * tolerance


def test_weights_and_params_stay():
    graph = parse_graph(LAYERS["conv"])
    before, after = quantized(graph, samples(graph))
    assert after.params == before.params
    assert after.graph is before.graph, "the float meaning stays"
    np.testing.assert_array_equal(after.integers["w"], before.integers["w"])


def test_corrections_follow_a_node_that_is_taken_out():
    graph = parse_graph(LAYERS["conv"])
    before, after = quantized(graph, samples(graph))
    assert np.any(after.integers["b"] != before.integers["b"])
    np.testing.assert_array_equal(after.extract(after.graph.nodes).integers["b"], after.integers["b"])


def test_corrections_of_unknown_tensors_are_refused():
    graph = parse_graph(LAYERS["conv"])
    _, after = quantized(graph, samples(graph))
    with pytest.raises(ValueError, match="ghost"):
        QuantizedGraph(after.graph, after.params, {"ghost": np.zeros(1, np.float32)})


def test_a_layer_without_bias_and_one_without_means_stay():
    text = "input x: float32[4,6]\nconstant w: float32[6,6]\nconstant b: float32[6]\n"
    text += "a = linear(x, w)\ny = linear(a, w, b)\noutput y"
    graph = parse_graph(text)
    found = observe(graph, [(samples(graph),)])
    model = assign_params(graph, {n: s.minmax() for n, s in found.items()}, Scheme())
    again = correct_biases(model, {"x": found["x"].means})
    assert not again.corrections


def test_means_along_another_axis_than_the_layers_are_not_used():
    """x is read by a convolution and by a linear layer: its means lie along the linear layer's axis."""
    text = "input x: float32[1,6,6,6]\nconstant w: float32[6,6,1,1]\nconstant v: float32[6,6]\n"
    text += "constant b: float32[6]\nconstant c: float32[6]\n"
    text += "a = conv2d(x, w, b)\ny = linear(x, v, c)\noutput a, y"
    graph = parse_graph(text)
    found = observe(graph, [(samples(graph),)])
    model = assign_params(graph, {n: s.minmax() for n, s in found.items()}, Scheme())
    after = correct_biases(model, {n: s.means for n, s in found.items()})
    assert set(after.corrections) == {"c"}
    assert np.any(after.corrections["c"])


def test_a_padded_convolution_is_corrected_but_for_its_border():
    text = "input x: float32[4,6,12,12]\nconstant w: float32[4,6,3,3]\nconstant b: float32[4]\n"
    graph = parse_graph(text + "y = conv2d(x, w, b) padding=(1,1,1,1)\noutput y")
    array = (3 + RNG.standard_normal((4, 6, 12, 12))).astype(np.float32)
    before, after = quantized(graph, array)
    left = [np.abs(mean_error(model, before.graph, array)).max() for model in (before, after)]
    # 44 of 144 results touch the border and see zeros instead of the mean in up to 5 of 9 places
    assert left[1] < 0.3 * left[0]
