"""Transposed convolutions along one axis and over images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from tests.ops.harness import check, check_int8, normal, operators, quantized, traced
from toolchain.engine.observe import observe
from toolchain.engine.run import predict
from toolchain.engine.simulate import simulate
from toolchain.errors import UnsupportedError
from toolchain.formats.onnx import check_onnx, read_onnx, write_onnx
from toolchain.formats.tflite import check_tflite, write_tflite
from toolchain.graph import Op
from toolchain.quantization import Granularity, Scheme, dequantize, quantize
from toolchain.quantization.correct import correct_biases

IMAGE = normal(2, 4, 7, 6)

WINDOWS = {
    "plain": {},
    "doubling": {"kernel_size": 4, "stride": 2, "padding": 1},
    "output padding": {"stride": 2, "padding": 1, "output_padding": 1},
    "uneven": {"kernel_size": (2, 5), "stride": (2, 3), "padding": (0, 2), "output_padding": (1, 0)},
    "dilated": {"dilation": (2, 3), "stride": 2, "padding": 1},
    "groups": {"groups": 2, "stride": 2},
    "depthwise": {"groups": 4, "stride": 2, "padding": 1, "bias": False},
    "all": {"groups": 2, "stride": (2, 1), "padding": (2, 1), "dilation": (1, 2), "output_padding": (1, 0)},
}


@pytest.mark.parametrize("case", WINDOWS)
def test_images(case):
    graph = check(nn.ConvTranspose2d(4, 8, **{"kernel_size": 3, **WINDOWS[case]}), IMAGE, ops={Op.CONV_TRANSPOSE2D})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("window", [{}, {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}])
def test_sequences(window):
    graph = check(nn.ConvTranspose1d(4, 8, 3, **window), normal(2, 4, 9), ops={Op.CONV_TRANSPOSE2D})
    assert "TRANSPOSE" not in operators(graph)


def test_what_the_padding_of_the_operator_says_costs_no_slice():
    found = operators(traced(nn.ConvTranspose2d(4, 8, 4, 2, 1), IMAGE))
    assert found == {"TRANSPOSE_CONV": 1}


def test_batch_norm_and_activation_fold_into_it():
    graph = check(nn.Sequential(nn.ConvTranspose2d(4, 8, 3, 2, groups=2), nn.BatchNorm2d(8), nn.ReLU()), IMAGE)
    assert [node.op for node in graph.nodes] == [Op.CONV_TRANSPOSE2D]


@pytest.mark.parametrize("groups", [1, 2])
def test_one_scale_a_tensor(groups):
    graph = traced(nn.ConvTranspose2d(4, 8, 3, 2, groups=groups), IMAGE)
    model = quantized(graph, IMAGE, scheme=Scheme(weight_granularity=Granularity.PER_TENSOR))
    assert check_onnx(write_onnx(model), model) == [] and check_tflite(write_tflite(model), model) == []


def test_the_onnx_file_holds_the_weight_as_onnx_has_it():
    graph = traced(nn.ConvTranspose2d(4, 6, 3), IMAGE)
    model = check_int8(graph, IMAGE)
    stored = read_onnx(write_onnx(model)).tensors["weight"]
    assert stored.shape == (4, 6, 3, 3) and stored.axis == 1 and len(stored.scale) == 6


@pytest.mark.parametrize("window", [{}, {"groups": 2, "dilation": 2}])
def test_a_weight_that_differs_is_found_in_both_files(window):
    graph = traced(nn.ConvTranspose2d(4, 8, 3, **window), IMAGE)
    model = quantized(graph, IMAGE)
    weight = np.array(graph.constants["weight"])
    weight[5, 1, 2, 0] *= -1
    other = replace(model, graph=graph.with_constants({"weight": weight}))
    assert any("weight" in finding for finding in check_onnx(write_onnx(model), other))
    assert any("weight" in finding for finding in check_tflite(write_tflite(model), other))


def test_more_output_padding_than_the_stride_is_refused_by_tflite_in_words():
    graph = traced(nn.ConvTranspose2d(4, 8, 3, dilation=3, stride=2, output_padding=2), IMAGE)
    with pytest.raises(UnsupportedError, match="output_padding"):
        write_tflite(graph)


@pytest.mark.parametrize("groups", [1, 2])
def test_correcting_its_bias_takes_out_the_mean_error_of_its_rounded_weights(groups):
    inputs = np.abs(normal(16, 4, 12, 12))
    graph = traced(nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=groups), inputs)
    means = {name: found.means for name, found in observe(graph, [(inputs,)]).items()}
    plain = quantized(graph, inputs, scheme=Scheme(weight_granularity=Granularity.PER_TENSOR))
    (source,), (output,) = graph.input_names, graph.outputs
    errors = []
    for model in (plain, correct_biases(plain, means)):
        found = simulate(model, [quantize(inputs, model.params[source])])[0]
        error = dequantize(found, model.params[output]) - predict(graph, [(inputs,)])[0]
        errors.append(np.abs(error.mean((0, 2, 3))).mean())
    assert errors[1] < errors[0] / 4
