"""The exact integer meaning, against integer arithmetic: int32 accumulators, one float64 requantization."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.numpy_ops import apply, convolve, convolve_transposed
from tests.graph.op_cases import CASES, case_graph, case_inputs
from toolchain.engine.observe import observe
from toolchain.engine.simulate import Simulator, simulate
from toolchain.graph import WEIGHTED, Graph, Op, fold, parse_graph
from toolchain.quantization import (
    QUANTIZATION_RULES,
    Kind,
    QuantizedGraph,
    Scheme,
    assign_params,
    clamp_integers,
    dequantize,
    quantize,
)

INTEGER = [
    c
    for c in CASES
    if QUANTIZATION_RULES[case_graph(c).nodes[0].op].kind not in (Kind.FLOAT, Kind.EXACT) and "infinity" not in c
]
LAYERS = [case for case in INTEGER if case_graph(case).nodes[0].op in WEIGHTED]


def quantized(graph: Graph, inputs: list[np.ndarray], scheme: Scheme | None = None) -> QuantizedGraph:
    graph = fold(graph)
    found = observe(graph, [inputs])
    return assign_params(graph, {name: s.minmax() for name, s in found.items()}, scheme or Scheme())


def integers(model: QuantizedGraph, inputs: list[np.ndarray]) -> list[np.ndarray]:
    pairs = zip(model.graph.input_names, inputs, strict=True)
    return [quantize(a, model.params[n]) if n in model.params else a for n, a in pairs]


def accumulate(model: QuantizedGraph, q: np.ndarray) -> np.ndarray:
    """The accumulator of the model's only layer, in int64, checked to fit int32."""
    (node,) = model.graph.nodes
    name, weight_name, *bias_name = node.inputs
    x = q.astype(np.int64) - int(model.params[name].zero_point)
    weight = model.integers[weight_name].astype(np.int64)
    if node.op is Op.LINEAR:
        total = x @ weight.T
    elif node.op is Op.CONV_TRANSPOSE2D:
        total = convolve_transposed(node, x, weight)
    else:
        total = convolve(node, x, weight, node.attributes.get("groups", x.shape[1]))
    shape = (-1,) if node.op is Op.LINEAR else (-1, 1, 1)
    total = total + sum(model.integers[bias].astype(np.int64).reshape(shape) for bias in bias_name)
    assert np.abs(total).max() < 2**31
    return total


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("case", LAYERS)
def test_layers_equal_integer_arithmetic_exactly(case, granularity):
    graph = case_graph(case)
    inputs = case_inputs(graph)
    model = quantized(graph, inputs, Scheme(weight_granularity=granularity))
    (node,) = model.graph.nodes
    (q,) = integers(model, inputs)
    source, weight, result = (model.params[name] for name in (*node.inputs[:2], node.output))
    multiplier = source.scale.astype(np.float64) * weight.scale.astype(np.float64) / result.scale.astype(np.float64)
    multiplier = multiplier.reshape(multiplier.shape if node.op is Op.LINEAR or not multiplier.ndim else (-1, 1, 1))
    real = np.rint(accumulate(model, q) * multiplier) + int(result.zero_point)
    low, high = clamp_integers(result, node["activation"])
    (found,) = simulate(model, [q])
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, np.clip(real, low, high).astype(np.int8))


@pytest.mark.parametrize("case", INTEGER)
def test_every_op_is_its_float_meaning_rounded_once(case):
    graph = case_graph(case)
    inputs = case_inputs(graph)
    model = quantized(graph, inputs)
    given = integers(model, inputs)
    constants = {name: dequantize(q, model.params[name]).astype(np.float64) for name, q in model.integers.items()}
    values = {
        n: dequantize(q, model.params[n]).astype(np.float64) if n in model.params else q
        for n, q in zip(graph.input_names, given, strict=True)
    }
    values = {**model.graph.constants, **constants, **values}
    (node,) = model.graph.nodes
    expected = apply(node, *(values[name] for name in node.inputs))
    (found,) = simulate(model, given)
    if node.output not in model.params:  # indices and booleans
        np.testing.assert_array_equal(found, expected)
        return
    expected = quantize(expected, model.params[node.output])
    # dequantized float32 values are a rounding away from the exact ones: a tie may fall the other way
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    if node.op not in (Op.AVG_POOL2D, Op.RESIZE):  # whose ties are common
        assert (found != expected).mean() < 0.02


@pytest.mark.parametrize("case", [c for c in INTEGER if not QUANTIZATION_RULES[case_graph(c).nodes[0].op].rounds])
def test_ops_that_move_integers_move_them_unchanged(case):
    graph = case_graph(case)
    model = quantized(graph, case_inputs(graph))
    given = integers(model, case_inputs(graph))
    (node,) = model.graph.nodes
    values = {**model.graph.constants, **model.integers, **dict(zip(graph.input_names, given, strict=True))}
    if node.op is Op.PAD:
        node = node.with_attributes(value=float(quantize(np.array(node["value"]), model.params["y"])))
    if node.op in (Op.MAX_POOL2D, Op.TOPK_VALUES):  # in int8 the lowest has no opposite
        values = {name: array.astype(np.float64) for name, array in values.items()}
    np.testing.assert_array_equal(simulate(model, given)[0], apply(node, *(values[n] for n in node.inputs)))


@pytest.mark.parametrize("case", ["avg_pool2d", "avg_pool2d padding"])
def test_averages_round_their_ties_to_even(case):
    graph = case_graph(case)
    (q,) = integers(model := quantized(graph, case_inputs(graph)), case_inputs(graph))
    (node,) = model.graph.nodes
    zero = int(model.params["y"].zero_point)
    expected = np.rint(apply(node, q.astype(np.float64) - zero)) + zero
    np.testing.assert_array_equal(simulate(model, [q])[0], expected)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_a_fused_activation_is_applied_where_saturation_does_not(activation):
    text = "input x: float32[1,50]\nconstant w: float32[50,50]\n"
    graph = parse_graph(
        f"{text}y = linear(x, w) activation={activation}\noutput y", {"w": np.eye(50, dtype=np.float32)}
    )
    ranges = {"x": (-20.0, 20.0), "y": (-20.0, 20.0)}
    x = np.linspace(-20, 20, 50).astype(np.float32)[None]
    model = assign_params(graph, ranges, Scheme())
    (found,) = simulate(model, integers(model, [x]))
    real = dequantize(found, model.params["y"])
    expected = np.maximum(x, 0) if activation == "relu" else np.clip(x, 0, 6)
    # the input's step, the weight's 127ths and the result's own step
    assert np.abs(real - expected).max() <= 1.5 * model.params["y"].step


def test_a_tensor_without_params_is_computed_in_float():
    graph = parse_graph("input x: float32[1,4]\na = relu(x)\ny = tanh(a)\noutput y")
    params = assign_params(graph, dict.fromkeys(graph.activations, (-1.0, 1.0)), Scheme()).params
    model = QuantizedGraph(graph, {name: params[name] for name in ("x", "a")})
    x = np.array([[-1, 0.25, 0.5, 1]], np.float32)
    (found,) = simulate(model, [quantize(x, params["x"])])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.tanh(np.maximum(x, 0)), atol=1.5 * params["x"].step)


def test_one_node_alone_is_what_it_is_in_the_row():
    graph = parse_graph(
        "input x: float32[2,4]\nconstant w: float32[4,4]\na = linear(x, w)\nb = tanh(a)\ny = add(a, b)\noutput y"
    )
    inputs = case_inputs(graph)
    model = quantized(graph, inputs)
    simulator = Simulator(model)
    values = simulator.run(integers(model, inputs))
    for node in model.graph.nodes:
        np.testing.assert_array_equal(simulator.node(node, values), values[node.output])
