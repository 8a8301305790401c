"""Learned roundings: exactly kept, never worse, the same for a seed, and what is fixed stays fixed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from toolchain.compress.rounding.learn import RoundingMethod, learn_rounding
from toolchain.compress.rounding.learned import correction_for
from toolchain.engine.module import GraphModule
from toolchain.engine.observe import observe
from toolchain.engine.run import predict, to_tensors
from toolchain.engine.simulate import simulate
from toolchain.fidelity import sqnr_db
from toolchain.graph import DType, Structure, parse_graph
from toolchain.quantization import AffineParams, Scheme, assign_params, dequantize, quantize
from toolchain.quantization.quantized import dequantize_outputs, quantize_inputs

NETWORK = parse_graph(
    """
input x: float32[8,6,10,10]
constant a.weight: float32[8,6,3,3]
constant a.bias: float32[8]
constant b.weight: float32[8,1,3,3]
constant b.bias: float32[8]
constant c.weight: float32[8,4,1,1]
constant d.weight: float32[5,8]
constant d.bias: float32[5]
a = conv2d(x, a.weight, a.bias) padding=(1,1,1,1) activation=relu
b = depthwise_conv2d(a, b.weight, b.bias) padding=(1,1,1,1) activation=relu
c = conv2d(b, c.weight) groups=2
s = add(c, a)
m = mean(s) axes=(2,3)
y = linear(m, d.weight, d.bias)
output y
"""
)


@cache
def samples(seed: int) -> np.ndarray:
    """Inputs whose features lie in two directions: where layers can be told apart from their weights."""
    random = np.random.default_rng(seed)
    basis = np.random.default_rng(9).standard_normal((2, 6))
    mixed = random.standard_normal((64, 10, 10, 2)) @ basis + 0.1 * random.standard_normal((64, 10, 10, 6))
    return np.moveaxis(mixed, -1, 1).astype(np.float32)


def batches(seed: int = 0):
    array = samples(seed)
    return lambda: ((array[i : i + 8],) for i in range(0, len(array), 8))


@cache
def model(bits: int):
    random = np.random.default_rng(1)
    graph = NETWORK.with_constants(
        {n: (random.standard_normal(a.shape) / np.sqrt(max(a[0].size, 1))).astype(np.float32)
         for n, a in NETWORK.constants.items()}
    )  # fmt: skip
    ranges = {name: found.minmax() for name, found in observe(graph, batches()()).items()}
    return assign_params(graph, ranges, Scheme(weight_bits=bits))


def output_db(quantized) -> float:
    """On samples that nothing was learned from."""
    found, wanted = [], []
    for inputs in batches(5)():
        wanted.append(predict(quantized.graph, [inputs])[0])
        found.append(dequantize_outputs(quantized, simulate(quantized, quantize_inputs(quantized, inputs)))[0])
    return sqnr_db(np.concatenate(wanted), np.concatenate(found))


@pytest.mark.parametrize("method", RoundingMethod)
def test_few_bits_lose_less(method):
    learned, facts = learn_rounding(model(3), batches(), method=method, seconds=1.0)
    assert output_db(learned) > output_db(model(3)) + 3.0
    assert all(layer.sqnr_after_db >= layer.sqnr_before_db - 1e-6 for layer in facts.layers)
    assert learned.params.keys() == model(3).params.keys()


@pytest.mark.parametrize("method", RoundingMethod)
def test_the_same_for_a_seed(method):
    first, second = (learn_rounding(model(4), batches(), method=method, seconds=0.5, seed=3)[0] for _ in range(2))
    assert first.corrections.keys() == second.corrections.keys()
    for name, correction in first.corrections.items():
        np.testing.assert_array_equal(correction, second.corrections[name])


def test_module_and_simulator_compute_with_the_learned_integers():
    learned, _ = learn_rounding(model(3), batches())
    module = GraphModule(learned.graph, params=learned.params, corrections=learned.corrections)
    inputs = next(iter(batches(5)()))
    exact = dequantize_outputs(learned, simulate(learned, quantize_inputs(learned, inputs)))[0]
    off = np.abs(module(*to_tensors(inputs)).detach().numpy() - exact)
    # float32 sums may fall on the other side of a tie in any of the five layers
    assert off.max() <= 2.001 * learned.params["y"].step
    for name in ("a.weight", "b.weight", "c.weight", "d.weight"):
        held = module.constant(name).detach().numpy()
        np.testing.assert_allclose(held, dequantize(learned.integers[name], learned.params[name]), rtol=1e-6)


@pytest.mark.parametrize("method", RoundingMethod)
def test_pruned_weights_stay_zero(method):
    weight = model(4).graph.constants["a.weight"]
    mask = np.abs(weight) > np.median(np.abs(weight))
    graph = model(4).graph.with_constants({"a.weight": weight * mask})
    learned, _ = learn_rounding(
        replace(model(4), graph=graph), batches(), method=method, structure=Structure(masks={"a.weight": mask}),
        seconds=0.5,
    )  # fmt: skip
    assert not learned.integers["a.weight"][~mask].any()


def test_every_integer_has_a_correction_that_gives_it():
    random = np.random.default_rng(0)
    weight = (random.standard_normal((4, 500)) * 10.0 ** random.integers(-3, 3, (4, 1))).astype(np.float32)
    params = AffineParams(DType.INT8, np.abs(weight).max(1) / 127, np.zeros(4), 0, -127, 127)
    integers = np.clip(quantize(weight, params) + random.integers(-2, 3, weight.shape), -127, 127).astype(np.int8)
    np.testing.assert_array_equal(quantize(weight + correction_for(weight, integers, params), params), integers)
