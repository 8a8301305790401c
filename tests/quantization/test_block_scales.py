"""Scales of blocks of inputs: the arithmetic, who has them, and what training and rounding do with them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from toolchain import Calibrate, Quantize, Trace, samples_from
from toolchain.engine.module import GraphModule
from toolchain.engine.run import predict
from toolchain.engine.simulate import simulate
from toolchain.graph import Codebook, DType, Structure, parse_graph
from toolchain.quantization import (
    AffineParams,
    NumberFormat,
    Scheme,
    assign_params,
    block_notes,
    block_sizes,
    dequantize,
    quantize,
    refit_weights,
)
from toolchain.quantization.affine import LEAST_BLOCK_SCALE, MOST_BLOCK_SCALE, block_params

BLOCKED = Scheme().with_numbers(NumberFormat.W4_BLOCK)
LAYERS = """
input x: float32[3,64]
constant a.weight: float32[9,64]
constant a.bias: float32[9]
constant b.weight: float32[96,9]
constant c.weight: float32[5,96]
a = linear(x, a.weight, a.bias) activation=relu
b = linear(a, b.weight)
c = linear(b, c.weight)
output c
"""


def bounds_of(weight: np.ndarray, block: int) -> np.ndarray:
    return np.abs(weight.reshape(len(weight), -1, block)).max(axis=2)


# down to the smallest scale, and as far up as float16 goes
values = st.floats(-7 * 65000.0, 7 * 65000.0, width=32)


@given(arrays.arrays(np.float32, (3, 64), elements=values))
def test_what_lies_in_a_block_comes_back_within_half_its_step(weight):
    params = block_params(bounds_of(weight, 32), 32)
    assert params.scale.shape == (3, 2)
    integers = quantize(weight, params)
    assert np.abs(integers).max() <= 7
    steps = np.repeat(params.scale, 32, axis=1)
    assert np.all(np.abs(dequantize(integers, params) - weight) <= 0.5 * steps * (1 + 2.0**-20))


@given(arrays.arrays(np.float64, (4, 3), elements=st.floats(0, 7 * MOST_BLOCK_SCALE)))
def test_scales_are_the_next_of_8_significant_bits(bound):
    scale = block_params(bound, 32).scale
    mantissa, _ = np.frexp(scale.astype(np.float64))
    np.testing.assert_array_equal(mantissa * 256, np.rint(mantissa * 256))
    np.testing.assert_array_equal(scale, scale.astype(np.float16))
    asked = np.maximum(bound / 7, LEAST_BLOCK_SCALE)[bound > 0]
    found = scale[bound > 0]
    # float32 rounds what is asked for by 2^-24; the step between numbers of 8 bits is at most 2^-7 of them
    assert np.all(found >= asked * (1 - 2.0**-24)) and np.all(found <= asked * (1 + 2.0**-7 + 2.0**-23))
    assert np.all(scale[bound == 0] == 1)


def test_parameters_come_back_from_plain_values():
    params = block_params(np.abs(np.random.default_rng(0).normal(size=(3, 4))), 64)
    again = AffineParams.from_plain(json.loads(json.dumps(params.to_plain())))
    assert again == params and hash(again) == hash(params) and again.scale.shape == (3, 4)
    other = replace(params, scale=np.roll(params.scale, 1))
    assert other != params
    assert replace(params, block=32) != params
    # what other parameters look like has not changed
    assert "block" not in AffineParams(DType.INT8, np.ones(3), np.zeros(3), 0).to_plain()


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": np.full((2, 2), 1 + 2.0**-8)},
        {"scale": np.full((2, 2), LEAST_BLOCK_SCALE / 2)},
        {"scale": np.full((2, 2), 2 * MOST_BLOCK_SCALE)},
        {"scale": np.ones(2), "zero_point": np.zeros(())},
        {"zero_point": np.ones((2, 2))},
        {"axis": 1},
    ],
)
def test_scales_that_no_file_can_hold_are_refused(changes):
    with pytest.raises(ValueError, match="scales of blocks"):
        replace(block_params(np.ones((2, 2)), 32), **changes)


def test_only_linear_layers_whose_inputs_are_whole_blocks_have_them():
    model = assign_params(parse_graph(LAYERS), {}, BLOCKED)
    found = {name: params.block for name, params in model.params.items()}
    assert found == {"a.weight": 32, "b.weight": None, "c.weight": 32}
    assert model.params["b.weight"].axis == 0 and model.params["b.weight"].dtype is DType.INT4
    (note,) = block_notes(model, 32)
    assert note == "int4 without blocks: inputs are no multiple of 32: b.weight [(top level)]"
    wide = assign_params(parse_graph(LAYERS), {}, replace(BLOCKED, weight_block=64))
    assert {name: params.block for name, params in wide.params.items()} == {**found, "a.weight": 64, "c.weight": None}


def test_weights_without_a_scale_in_float16_a_codebook_or_one_meaning_have_none():
    graph = parse_graph(LAYERS)
    for factor in (1e-5, 1e6):
        scaled = graph.with_constants({"a.weight": graph.constants["a.weight"] * np.float32(factor)})
        assert set(block_sizes(scaled, BLOCKED, Structure())) == {"c.weight"}
    book = Codebook(np.ones(1, np.float32), np.zeros((5, 96), np.uint8))
    assert set(block_sizes(graph, BLOCKED, Structure(codebooks={"c.weight": book}))) == {"a.weight"}
    # the same weight read by an integer layer
    shared = parse_graph(LAYERS.replace("output c", "d = linear(b, c.weight)\noutput c\noutput d"))
    assert set(block_sizes(shared, BLOCKED, Structure(), {"d": NumberFormat.W8A8})) == {"a.weight"}


def test_a_module_computes_with_the_rounded_weights_and_its_scales_follow_them():
    graph = parse_graph(LAYERS)
    model = assign_params(graph, {}, BLOCKED)
    inputs = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    module = GraphModule(graph, params=model.params)
    (wanted,) = simulate(model, [inputs])
    found = module(torch.from_numpy(inputs))
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    found.sum().backward()
    assert float(module.get_parameter("a.weight").grad.abs().sum()) > 0
    with torch.no_grad():
        module.get_parameter("a.weight").mul_(0.37)
    moved = graph.with_constants(module.trained_constants())
    again = refit_weights(moved, model.params)
    assert again["a.weight"].block == 32 and np.all(again["a.weight"].scale < model.params["a.weight"].scale)
    np.testing.assert_array_equal(
        module.constant("a.weight").detach().numpy(),
        dequantize(quantize(moved.constants["a.weight"], again["a.weight"]), again["a.weight"]),
    )


def test_learned_steps_leave_them_as_they_are():
    graph = parse_graph(LAYERS)
    model = assign_params(graph, {}, BLOCKED)
    module = GraphModule(graph, params=model.params, learned_steps=True)
    assert set(module.trained_scales()) == {"b.weight"}


@pytest.mark.parametrize("rounding", ["second_order", "adaround", "block"])
def test_learned_rounding_moves_their_integers_and_not_their_scales(rounding):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.Linear(96, 32)).eval()
    random = np.random.default_rng(0)
    # inputs that go together, so that errors of weights can make up for each other
    inputs = (random.normal(size=(96, 6)) @ random.normal(size=(6, 64))).astype(np.float32)
    samples = samples_from(inputs, calibration_count=64, judging_count=32, batch_size=32)
    calibrated = Calibrate(samples=samples)(Trace(example_inputs=samples.first_inputs())(module))
    nearest = Quantize(numbers="w4_block")(calibrated)
    learned = Quantize(numbers="w4_block", rounding=rounding, samples=samples, seconds=1.0)(calibrated)
    blocks = {name for name, params in nearest.params.items() if params.block is not None}
    assert len(blocks) == 2 and all(learned.params[name] == nearest.params[name] for name in blocks)
    judged = [batch.inputs for batch in samples.judging()]
    wanted = [predict(calibrated.reference, [inputs])[0] for inputs in judged]
    errors = []
    for model in (nearest, learned):
        found = [simulate(model.quantized, inputs)[0] for inputs in judged]
        errors.append(sum(float(np.square(a - b).sum()) for a, b in zip(found, wanted, strict=True)))
    assert errors[1] < errors[0] / 2
    again = learned.from_module(learned.to_module())
    for name in blocks:
        np.testing.assert_array_equal(again.quantized.integers[name], learned.quantized.integers[name])
