"""Every op, float and int8, as LiteRT executes it (XNNPACK and reference kernels), against float64."""

import random
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema

from toolchain.engine.run import as_tensors, run
from toolchain.engine.simulate import Simulator
from toolchain.errors import BudgetError, OptionError, SampleError, UnsupportedError
from toolchain.formats.artifact import InOut
from toolchain.formats.tflite import (
    TFLITE_LOWERINGS,
    Layout,
    TfliteRunner,
    check_tflite,
    emitter,
    flatbuffer,
    layouts,
    read_tflite,
    write_tflite,
    writer,
)
from toolchain.formats.tflite.layout import CHANNELS_LAST, Flattened, identity, plan_moves
from toolchain.formats.tflite.layout_rules import LAYOUT_RULES
from toolchain.formats.tflite.parse import parse
from toolchain.formats.tflite.windows import Window, exact_padding
from toolchain.graph import DType, Graph, Op, fold, parse_graph, sweep
from toolchain.quantization import QuantizedGraph, Scheme, assign_params, dequantize, quantize

IMAGE = "input x: float32[1,4,9,9]\n"
WEIGHT = "constant w: float32[8,4,3,3]\nconstant b: float32[8]\n"
DEPTHWISE = "constant w: float32[4,1,3,3]\nconstant b: float32[4]\n"
PAIR = IMAGE + "input z: float32[1,4,9,9]\n"

CASES = {
    "conv2d valid": IMAGE + WEIGHT + "y = conv2d(x, w, b)\noutput y",
    "conv2d same": IMAGE + WEIGHT + "y = conv2d(x, w, b) padding=(1,1,1,1) activation=relu\noutput y",
    "conv2d stride same": IMAGE + WEIGHT + "y = conv2d(x, w, b) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "conv2d stride explicit": "input x: float32[1,4,8,8]\n"
    + WEIGHT
    + "y = conv2d(x, w, b) stride=(2,2) padding=(1,1,1,1) activation=relu6\noutput y",
    "conv2d asymmetric": IMAGE + WEIGHT + "y = conv2d(x, w, b) padding=(2,0,1,3)\noutput y",
    "conv2d uneven stride": IMAGE + WEIGHT + "y = conv2d(x, w, b) stride=(2,1) padding=(1,1,1,1)\noutput y",
    "conv2d dilation": IMAGE + WEIGHT + "y = conv2d(x, w, b) dilation=(2,3) padding=(2,3,2,3)\noutput y",
    "conv2d no bias": IMAGE + "constant w: float32[8,4,3,3]\ny = conv2d(x, w) activation=relu6\noutput y",
    "conv2d even kernel": IMAGE + "constant w: float32[8,4,2,4]\ny = conv2d(x, w) padding=(0,1,1,2)\noutput y",
    "conv2d pointwise": IMAGE
    + "constant w: float32[8,4,1,1]\nconstant b: float32[8]\ny = conv2d(x, w, b) activation=relu\noutput y",
    "conv2d pointwise stride": IMAGE + "constant w: float32[8,4,1,1]\ny = conv2d(x, w) stride=(2,2)\noutput y",
    "conv2d groups": IMAGE
    + "constant w: float32[8,2,3,3]\nconstant b: float32[8]\n"
    + "y = conv2d(x, w, b) groups=2 padding=(1,1,1,1) activation=relu\noutput y",
    "conv2d groups stride dilation": "input x: float32[1,6,11,10]\n"
    + "constant w: float32[9,2,3,2]\nconstant b: float32[9]\n"
    + "y = conv2d(x, w, b) groups=3 padding=(1,0,2,1) stride=(2,1) dilation=(1,2)\noutput y",
    "conv2d batch": "input x: float32[3,4,9,9]\n" + WEIGHT + "y = conv2d(x, w, b) padding=(1,1,1,1)\noutput y",
    "conv2d one channel": "input x: float32[1,1,9,9]\nconstant w: float32[8,1,3,3]\nconstant b: float32[8]\n"
    + "y = conv2d(x, w, b) padding=(1,1,1,1) activation=relu\noutput y",
    "depthwise valid": IMAGE + DEPTHWISE + "y = depthwise_conv2d(x, w, b)\noutput y",
    "depthwise same": IMAGE + DEPTHWISE + "y = depthwise_conv2d(x, w, b) padding=(1,1,1,1) activation=relu6\noutput y",
    "depthwise stride explicit": "input x: float32[1,4,8,8]\n"
    + DEPTHWISE
    + "y = depthwise_conv2d(x, w, b) stride=(2,2) padding=(1,1,1,1) activation=relu\noutput y",
    "depthwise stride same": "input x: float32[1,4,8,8]\n"
    + DEPTHWISE
    + "y = depthwise_conv2d(x, w, b) stride=(2,2) padding=(0,0,1,1)\noutput y",
    "depthwise uneven stride": IMAGE
    + DEPTHWISE
    + "y = depthwise_conv2d(x, w, b) stride=(1,2) padding=(1,0,1,0)\noutput y",
    "depthwise dilation": IMAGE
    + DEPTHWISE
    + "y = depthwise_conv2d(x, w, b) dilation=(2,2) padding=(2,2,2,2)\noutput y",
    "depthwise multiplier": IMAGE
    + "constant w: float32[12,1,3,3]\nconstant b: float32[12]\n"
    + "y = depthwise_conv2d(x, w, b) padding=(1,1,1,1)\noutput y",
    "depthwise pointwise, no bias": IMAGE + "constant w: float32[4,1,1,1]\ny = depthwise_conv2d(x, w)\noutput y",
    "depthwise 5x5": IMAGE
    + "constant w: float32[4,1,5,5]\nconstant b: float32[4]\n"
    + "y = depthwise_conv2d(x, w, b) padding=(2,2,2,2) stride=(2,2)\noutput y",
    "linear": "input x: float32[3,20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b)\noutput y",
    "linear no bias, relu": "input x: float32[3,20]\nconstant w: float32[7,20]\n"
    + "y = linear(x, w) activation=relu\noutput y",
    "linear rank 3": "input x: float32[2,5,20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b) activation=relu6\noutput y",
    "linear rank 1": "input x: float32[20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b)\noutput y",
    "linear rank 4": "input x: float32[1,5,6,20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b)\noutput y",
    "linear over channels last": IMAGE
    + "constant w: float32[7,4]\nconstant b: float32[7]\n"
    + "p = permute(x) axes=(0,2,3,1)\ny = linear(p, w, b)\noutput y",
    "flatten, linear": IMAGE
    + "constant w: float32[7,324]\nconstant b: float32[7]\n"
    + "f = reshape(x) shape=(1,324)\ny = linear(f, w, b)\noutput y",
    "flatten, relu, add, linear": PAIR
    + "constant w: float32[7,324]\nconstant c: float32[324]\nf = reshape(x) shape=(1,324)\n"
    + "g = reshape(z) shape=(1,324)\nr = relu(f)\ns = add(r, g)\nt = mul(s, c)\ny = linear(t, w)\noutput y",
    "flatten, two linears": IMAGE
    + "constant w: float32[7,324]\nconstant v: float32[5,324]\n"
    + "f = reshape(x) shape=(1,324)\ny = linear(f, w)\nu = linear(f, v)\noutput y, u",
    "flatten and add to a vector": IMAGE
    + "input z: float32[1,324]\nconstant w: float32[7,324]\n"
    + "f = reshape(x) shape=(1,324)\ns = add(f, z)\ny = linear(s, w)\noutput y",
    "flatten to an output": IMAGE + "y = reshape(x) shape=(1,324)\noutput y",
    "relu": IMAGE + "y = relu(x)\noutput y",
    "relu6": IMAGE + "y = relu6(x)\noutput y",
    "leaky_relu": IMAGE + "y = leaky_relu(x) slope=0.2\noutput y",
    "sigmoid": IMAGE + "y = sigmoid(x)\noutput y",
    "tanh": IMAGE + "y = tanh(x)\noutput y",
    "hardswish": IMAGE + "y = hardswish(x)\noutput y",
    "softmax last": "input x: float32[3,10]\ny = softmax(x) axis=1\noutput y",
    "softmax channels": IMAGE + "y = softmax(x) axis=1\noutput y",
    "softmax width": IMAGE + "y = softmax(x) axis=3\noutput y",
    "softmax long": "input x: float32[2,1000]\ny = softmax(x) axis=1\noutput y",
    "softmax rank 3": "input x: float32[2,5,7]\ny = softmax(x) axis=1\noutput y",
    "add": PAIR + "y = add(x, z)\noutput y",
    "add relu": PAIR + "y = add(x, z) activation=relu\noutput y",
    "add to itself": IMAGE + "y = add(x, x)\noutput y",
    "add channels": IMAGE + "constant c: float32[4,1,1]\ny = add(x, c) activation=relu6\noutput y",
    "add lower rank": IMAGE + "input z: float32[4,1,9]\ny = add(x, z)\noutput y",
    "add both broadcast": "input x: float32[1,4,9,1]\ninput z: float32[1,1,9,9]\ny = add(x, z)\noutput y",
    "add row": IMAGE + "constant c: float32[9]\ny = add(x, c)\noutput y",
    "sub": PAIR + "y = sub(x, z)\noutput y",
    "sub constant": IMAGE + "constant c: float32[1,4,1,1]\ny = sub(x, c) activation=relu\noutput y",
    "sub from constant": IMAGE + "constant c: float32[]\ny = sub(c, x)\noutput y",
    "mul": PAIR + "y = mul(x, z)\noutput y",
    "mul scalar": IMAGE + "constant c: float32[]\ny = mul(x, c)\noutput y",
    "mul gate": IMAGE + "input z: float32[1,4,1,1]\ny = mul(x, z) activation=relu6\noutput y",
    "mul gate by a vector": IMAGE + "input z: float32[1,4]\ng = reshape(z) shape=(1,4,1,1)\ny = mul(x, g)\noutput y",
    "max_pool2d": IMAGE + "y = max_pool2d(x) kernel_size=(2,2) stride=(2,2)\noutput y",
    "max_pool2d same": IMAGE + "y = max_pool2d(x) kernel_size=(3,3) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "max_pool2d explicit": "input x: float32[1,4,8,8]\n"
    + "y = max_pool2d(x) kernel_size=(3,3) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "max_pool2d of relu": "input x: float32[1,4,8,8]\nr = relu(x)\n"
    + "y = max_pool2d(r) kernel_size=(3,3) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "avg_pool2d": IMAGE + "y = avg_pool2d(x) kernel_size=(3,3) stride=(3,3)\noutput y",
    "avg_pool2d uneven": IMAGE + "y = avg_pool2d(x) kernel_size=(2,3) stride=(2,1)\noutput y",
    "avg_pool2d same": IMAGE + "y = avg_pool2d(x) kernel_size=(3,3) stride=(1,1) padding=(1,1,1,1)\noutput y",
    "avg_pool2d explicit": "input x: float32[1,4,8,8]\n"
    + "y = avg_pool2d(x) kernel_size=(3,3) stride=(2,2) padding=(1,1,1,1)\noutput y",
    "avg_pool2d wide padding": IMAGE + "y = avg_pool2d(x) kernel_size=(2,4) stride=(2,1) padding=(1,2,1,2)\noutput y",
    "avg_pool2d larger than the image": "input x: float32[1,4,3,3]\n"
    + "y = avg_pool2d(x) kernel_size=(4,4) padding=(2,2,1,1)\noutput y",
    "avg_pool2d global": IMAGE + "y = avg_pool2d(x) kernel_size=(9,9)\noutput y",
    "mean image": IMAGE + "y = mean(x) axes=(2,3)\noutput y",
    "mean image keepdim": IMAGE + "y = mean(x) axes=(2,3) keepdim=True\noutput y",
    "mean channels": IMAGE + "y = mean(x) axes=(1,)\noutput y",
    "mean width": IMAGE + "y = mean(x) axes=(3,)\noutput y",
    "mean sequence": "input x: float32[2,7,12]\ny = mean(x) axes=(1,) keepdim=True\noutput y",
    "mean last": "input x: float32[2,7,12]\ny = mean(x) axes=(2,)\noutput y",
    "mean of everything": IMAGE + "y = mean(x) axes=(0,1,2,3)\noutput y",
    "reshape merges height and width": IMAGE + "y = reshape(x) shape=(1,4,81)\noutput y",
    "reshape splits channels": IMAGE + "y = reshape(x) shape=(1,2,2,9,9)\noutput y",
    "reshape mixes axes": "input x: float32[1,4,6,9]\ny = reshape(x) shape=(1,8,27)\noutput y",
    "reshape of a vector": "input x: float32[2,12]\ny = reshape(x) shape=(2,3,4)\noutput y",
    "patches": IMAGE
    + "constant w: float32[5,4]\nf = reshape(x) shape=(1,4,81)\n"
    + "p = permute(f) axes=(0,2,1)\ny = linear(p, w)\noutput y",
    "channel shuffle": IMAGE
    + "constant w: float32[8,4,1,1]\na = reshape(x) shape=(1,2,2,9,9)\np = permute(a) axes=(0,2,1,3,4)\n"
    + "s = reshape(p) shape=(1,4,9,9)\ny = conv2d(s, w)\noutput y",
    "permute to channels last": IMAGE + "y = permute(x) axes=(0,2,3,1)\noutput y",
    "permute inside": IMAGE + "r = relu(x)\np = permute(r) axes=(0,3,1,2)\ny = relu6(p)\noutput y",
    "permute of a result to an output": IMAGE + "r = relu(x)\ny = permute(r) axes=(0,2,3,1)\noutput y",
    "permute, both outputs": IMAGE + "r = relu(x)\ny = permute(r) axes=(0,2,3,1)\noutput y, r",
    "permute of a matrix": "input x: float32[5,7]\nr = relu(x)\ny = permute(r) axes=(1,0)\noutput y",
    "add of different layouts": IMAGE
    + "input z: float32[1,9,9,4]\nq = relu(z)\np = permute(q) axes=(0,3,1,2)\ny = add(x, p)\noutput y",
    "concat channels": IMAGE + "input z: float32[1,3,9,9]\ny = concat(x, z) axis=1\noutput y",
    "concat height": PAIR + "y = concat(x, z, x) axis=2\noutput y",
    "concat vectors": "input x: float32[2,5]\ninput z: float32[2,3]\ny = concat(x, z) axis=1\noutput y",
    "softmax along the width that weighs two tensors": IMAGE
    + "q = relu(x)\ns = softmax(q) axis=3\na = mul(s, q)\nb = mul(q, q)\nc = mul(s, b)\n"
    + "m = mean(a) axes=(2,3)\nn = mean(c) axes=(2,3)\ny = concat(m, n) axis=1\noutput y",
    "pad": IMAGE + "y = pad(x) amounts=(0,0,1,2,0,0,2,1)\noutput y",
    "pad channels": IMAGE + "y = pad(x) amounts=(0,1,0,0,0,2,0,0)\noutput y",
    "pad value": IMAGE + "y = pad(x) amounts=(0,1,0,2,0,0,0,1) value=0.75\noutput y",
    "pad cuts": IMAGE + "y = pad(x) amounts=(0,0,-1,2,0,0,1,-3)\noutput y",
    "slice": IMAGE + "y = slice(x) axes=(1,3) starts=(1,2) stops=(3,9) steps=(1,1)\noutput y",
    "slice steps": IMAGE + "y = slice(x) axes=(1,2) starts=(1,0) stops=(4,9) steps=(2,3)\noutput y",
    "two outputs": IMAGE + "r = relu(x)\ny = max_pool2d(r) kernel_size=(2,2)\noutput r, y",
    "several ops": IMAGE
    + WEIGHT
    + "constant v: float32[8,1,3,3]\nconstant d: float32[8]\n"
    + "constant l: float32[10,8]\nconstant m: float32[10]\n"
    + "c = conv2d(x, w, b) padding=(1,1,1,1) activation=relu6\n"
    + "e = depthwise_conv2d(c, v, d) padding=(1,1,1,1) activation=relu6\ns = add(c, e)\n"
    + "g = mean(s) axes=(2,3)\ny = linear(g, l, m)\noutput y",
}

# over 511 values the reference kernel of SOFTMAX is not to be trusted
KERNELS = {name: ("xnnpack",) if name == "softmax long" else ("xnnpack", "reference") for name in CASES}
RUNS = [(name, kernels) for name in CASES for kernels in KERNELS[name]]

# operators of the int8 file, where they are not one an op
OPERATORS = {
    "conv2d stride same": {"CONV_2D": 1},
    "conv2d stride explicit": {"PAD": 1, "CONV_2D": 1},
    "conv2d asymmetric": {"PAD": 1, "CONV_2D": 1},
    "conv2d groups": {"CONV_2D": 1},
    "depthwise stride same": {"DEPTHWISE_CONV_2D": 1},
    "linear over channels last": {"FULLY_CONNECTED": 1},
    "flatten, linear": {"RESHAPE": 1, "FULLY_CONNECTED": 1},
    "flatten, relu, add, linear": {"RESHAPE": 2, "ADD": 2, "MUL": 1, "FULLY_CONNECTED": 1},
    "flatten, two linears": {"RESHAPE": 1, "FULLY_CONNECTED": 2},
    "flatten to an output": {"TRANSPOSE": 1, "RESHAPE": 1},
    "softmax channels": {"SOFTMAX": 1},
    "softmax width": {"TRANSPOSE": 1, "SOFTMAX": 1},
    "softmax along the width that weighs two tensors": {
        **{"ADD": 1, "TRANSPOSE": 2, "SOFTMAX": 1, "MUL": 3, "MEAN": 2, "CONCATENATION": 1}
    },
    "max_pool2d same": {"MAX_POOL_2D": 1},
    "max_pool2d explicit": {"PADV2": 1, "MAX_POOL_2D": 1},
    "max_pool2d of relu": {"ADD": 1, "PAD": 1, "MAX_POOL_2D": 1},
    "avg_pool2d same": {"AVERAGE_POOL_2D": 1},
    "avg_pool2d explicit": {"SLICE": 4, "AVERAGE_POOL_2D": 4, "CONCATENATION": 3},
    "avg_pool2d global": {"MEAN": 1},
    "mul gate by a vector": {"RESHAPE": 1, "MUL": 1},
    "patches": {"RESHAPE": 1, "FULLY_CONNECTED": 1},
    "channel shuffle": {"RESHAPE": 2, "TRANSPOSE": 1, "CONV_2D": 1},
    "permute to channels last": {"RESHAPE": 1},
    "permute inside": {"ADD": 2, "TRANSPOSE": 1},
    "permute of a result to an output": {"ADD": 1},
    "pad value": {"PADV2": 1},
    "slice": {"SLICE": 1},
    "slice steps": {"STRIDED_SLICE": 1},
    "several ops": {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "ADD": 1, "MEAN": 1, "FULLY_CONNECTED": 1},
}


@cache
def float_graph(name: str) -> Graph:
    return parse_graph(CASES[name])


@cache
def samples(name: str) -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    return [(3 * draw.standard_normal(v.type.shape)).astype(np.float32) for v in float_graph(name).inputs]


def float64_values(graph: Graph, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def keep(name: str, value: torch.Tensor) -> torch.Tensor:
        found[name] = value.numpy()
        return value

    constants = as_tensors(graph.constants, torch.float64)
    run(graph, [torch.tensor(x, dtype=torch.float64) for x in inputs], constants=constants, hook=keep)
    return found


@cache
def quantized_graph(name: str) -> QuantizedGraph:
    values = float64_values(float_graph(name), samples(name))
    ranges = {tensor: (float(value.min()), float(value.max())) for tensor, value in values.items()}
    return assign_params(float_graph(name), ranges, Scheme())


def integer_samples(name: str) -> list[np.ndarray]:
    model = quantized_graph(name)
    pairs = zip(samples(name), model.graph.input_names, strict=True)
    return [quantize(x, model.params[tensor]) for x, tensor in pairs]


def test_every_op_has_its_facets():
    assert set(TFLITE_LOWERINGS) == set(LAYOUT_RULES) == set(Op)


@pytest.mark.parametrize(("name", "kernels"), RUNS)
def test_float(name, kernels):
    graph, inputs = float_graph(name), samples(name)
    wanted = float64_values(graph, inputs)
    runner = TfliteRunner(write_tflite(graph), kernels=kernels)
    seen = runner.tensors(inputs) | dict(zip(graph.outputs, runner.run(inputs), strict=True))
    for tensor in graph.activations:
        assert seen[tensor].shape == wanted[tensor].shape
        tolerance = 1e-5 * max(np.ptp(wanted[tensor]), np.abs(wanted[tensor]).max())
        np.testing.assert_allclose(seen[tensor], wanted[tensor], rtol=0, atol=tolerance, err_msg=tensor)


@pytest.mark.parametrize(("name", "kernels"), RUNS)
def test_int8_within_one_step_of_the_exact_meaning(name, kernels):
    """Every op on the integers it was given, and what `run` gives is what `tensors` sees."""
    model, inputs = quantized_graph(name), integer_samples(name)
    runner, simulator = TfliteRunner(write_tflite(model), kernels=kernels), Simulator(model)
    outputs, seen = runner.run(inputs), runner.tensors(inputs)
    for node in model.graph.nodes:
        exact = simulator.node(node, seen)
        assert seen[node.output].dtype == np.int8
        assert seen[node.output].shape == exact.shape
        assert np.abs(seen[node.output].astype(int) - exact.astype(int)).max() <= 1, node.name
    for tensor, output in zip(model.graph.outputs, outputs, strict=True):
        np.testing.assert_array_equal(seen[tensor], output)


@pytest.mark.parametrize(("name", "kernels"), RUNS)
def test_float_ends_are_one_conversion_each(name, kernels):
    model, inputs = quantized_graph(name), integer_samples(name)
    inner = TfliteRunner(write_tflite(model), kernels=kernels).run(inputs)
    content = write_tflite(model, in_out=InOut.FLOAT)
    facts = read_tflite(content)
    assert facts.ops["QUANTIZE"] == len(model.graph.inputs)
    assert facts.ops["DEQUANTIZE"] == len(model.graph.outputs)
    reals = [dequantize(q, model.params[n]) for q, n in zip(inputs, model.graph.input_names, strict=True)]
    runner = TfliteRunner(content, kernels=kernels)
    for tensor, output, q in zip(model.graph.outputs, runner.run(reals), inner, strict=True):
        np.testing.assert_allclose(output, dequantize(q, model.params[tensor]), rtol=1e-6, atol=0)
    seen = runner.tensors(reals)
    assert all(seen[tensor].dtype == np.int8 for tensor in model.graph.activations)
    assert not check_tflite(content, model)


@pytest.mark.parametrize("name", CASES)
def test_holds_what_was_asked_for(name):
    """Integers everywhere, names of the graph, nothing but the mathematics' own operators."""
    model = quantized_graph(name)
    content = write_tflite(model)
    facts = read_tflite(content)
    assert not check_tflite(content, model)
    assert not check_tflite(write_tflite(float_graph(name)), float_graph(name))
    assert not [tensor for tensor in facts.tensors.values() if tensor.dtype.is_float]
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(facts.ops)
    assert facts.inputs == model.graph.input_names
    assert facts.outputs == model.graph.outputs
    if name in OPERATORS:
        assert facts.ops == OPERATORS[name]


@pytest.mark.parametrize("name", CASES)
def test_bytes_repeat(name):
    again = parse_graph(CASES[name])
    assert write_tflite(float_graph(name)) == write_tflite(again)
    assert write_tflite(quantized_graph(name)) == write_tflite(QuantizedGraph(again, quantized_graph(name).params))


@pytest.mark.parametrize("in_out", InOut)
def test_xnnpack_takes_a_whole_network(in_out):
    content = write_tflite(quantized_graph("several ops"), in_out=in_out)
    assert TfliteRunner(content).undelegated_ops() == {}
    assert sum(TfliteRunner(content, kernels="builtin").undelegated_ops().values()) == len(parse(content).operators)


def test_xnnpack_leaves_what_it_has_no_int8_kernel_for():
    runner = TfliteRunner(write_tflite(quantized_graph("hardswish")))
    assert runner.undelegated_ops() == {"HARD_SWISH": 1}


def test_batch_norm_that_is_left_is_written_in_float_only():
    text = "input x: float32[2,5,7]\n" + "".join(f"constant {n}: float32[5]\n" for n in "wbmv")
    graph = parse_graph(text + "y = batch_norm(x, w, b, m, v)\noutput y", {"v": np.ones(5, np.float32)})
    x = np.random.default_rng(0).standard_normal((2, 5, 7)).astype(np.float32)
    content = write_tflite(graph)
    assert read_tflite(content).ops == {"MUL": 1, "ADD": 1}
    assert not check_tflite(content, graph)
    wanted = float64_values(graph, [x])["y"]
    np.testing.assert_allclose(TfliteRunner(content).run([x])[0], wanted, rtol=0, atol=1e-5 * np.ptp(wanted))


# layouts


def test_layouts_of_a_flatten_before_a_linear_layer():
    found = layouts(write_tflite(quantized_graph("flatten, relu, add, linear")))
    assert found["x"] == CHANNELS_LAST
    assert found["t"] == Layout((0, 1), Flattened(1, (4, 9, 9), (1, 2, 0)))
    assert found["y"] == identity(2)


def test_outputs_of_rank_4_stay_channels_last():
    content = write_tflite(float_graph("conv2d valid"))
    assert layouts(content)["y"] == CHANNELS_LAST
    assert read_tflite(content).tensors["y"].shape == (1, 7, 7, 8)
    permuted = write_tflite(float_graph("permute of a result to an output"))
    assert layouts(permuted)["y"] == identity(4)
    assert read_tflite(permuted).tensors["y"].shape == (1, 9, 9, 4)


LAYOUTS = [
    Layout((0, 1)),
    Layout((1, 0)),
    Layout((0, 1), Flattened(1, (2, 3, 4), (1, 2, 0))),
    Layout((1, 0), Flattened(1, (4, 6), (1, 0))),
]


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("target", LAYOUTS)
def test_moves_between_layouts(source, target):
    logical = np.arange(5 * 24).reshape(5, 24)
    array = source.to_physical(logical)
    np.testing.assert_array_equal(source.to_logical(array), logical)
    assert Layout.from_plain(source.to_plain()) == source
    for move in plan_moves(source, target, logical.shape):
        array = array.transpose(move.permutation) if move.permutation else array.reshape(move.shape)
        assert array.shape == move.shape
    np.testing.assert_array_equal(array, target.to_physical(logical))
    assert bool(plan_moves(source, target, logical.shape)) == (source != target)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_padding_is_folded_where_it_is_tensorflows(kernel, stride):
    """One axis, every padding: SAME and VALID are named where, and only where, they pad as the graph does."""
    for size in range(kernel, 12):
        positions = -(-size // stride)
        total = max((positions - 1) * stride + kernel - size, 0)
        for before in range(kernel):
            for after in range(kernel):
                count = (size + before + after - kernel) // stride + 1
                window = Window(size, kernel, stride, before, after, count)
                reach = [max(i * stride - before, 0) for i in range(count)]
                named = exact_padding((window, window))
                if named == schema.Padding.VALID:
                    assert reach == [i * stride for i in range(count)]
                    assert reach[-1] + kernel <= size
                elif named == schema.Padding.SAME:
                    assert count == positions
                    assert reach == [max(i * stride - total // 2, 0) for i in range(count)]
                else:
                    assert (before, count) not in (
                        (0, (size - kernel) // stride + 1),
                        (total // 2, positions),
                    )


def random_program(seed: int) -> str:
    """A graph of ops that move, merge and mix axes: what the layouts have to be right for."""
    draw = random.Random(seed)
    shapes = {"x": tuple(draw.choice([1, 2, 3, 4]) for _ in range(draw.choice([2, 3, 4, 4, 5])))}
    lines, constants = [], []

    def listed(values):
        return f"({','.join(map(str, values))},)"

    def add(op, inputs, made, **attributes):
        name = f"t{len(shapes)}"
        given = " ".join(f"{key}={listed(v) if isinstance(v, tuple) else v}" for key, v in attributes.items())
        lines.append(f"{name} = {op}({', '.join(inputs)}) {given}")
        shapes[name] = made

    def constant(shape):
        constants.append(f"constant c{len(constants)}: float32[{','.join(map(str, shape))}]")
        return f"c{len(constants) - 1}"

    for _ in range(draw.randrange(3, 9)):
        name = draw.choice(list(shapes)[-3:])
        shape, rank = shapes[name], len(shapes[name])
        axis = draw.randrange(rank)
        op = draw.choice(["permute", "merge", "split", "add", "linear", "softmax", "mean", "concat", "conv2d"])
        if op == "permute":
            axes = tuple(draw.sample(range(rank), rank))
            add("permute", [name], tuple(shape[a] for a in axes), axes=axes)
        elif op == "merge" and rank > 2 and axis < rank - 1:
            merged = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
            add("reshape", [name], merged, shape=merged)
        elif op == "split" and rank < 5:
            factor = draw.choice([k for k in range(1, shape[axis] + 1) if shape[axis] % k == 0])
            split = (*shape[:axis], factor, shape[axis] // factor, *shape[axis + 1 :])
            add("reshape", [name], split, shape=split)
        elif op == "add":
            other = constant(tuple(draw.choice([1, size]) for size in shape)[draw.randrange(rank) :])
            add("add", [name, other], shape)
        elif op == "linear":
            add("linear", [name, constant((3, shape[-1]))], (*shape[:-1], 3))
        elif op == "softmax":
            add("softmax", [name], shape, axis=axis)
        elif op == "mean" and rank > 2:
            add("mean", [name], shape[:axis] + shape[axis + 1 :], axes=(axis,))
        elif op == "concat":
            doubled = (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])
            add("concat", [name, name], doubled, axis=axis)
        elif op == "conv2d" and rank == 4:
            add("conv2d", [name, constant((3, shape[1], 1, 1))], (shape[0], 3, *shape[2:]))
    head = f"input x: float32[{','.join(map(str, shapes['x']))}]"
    return "\n".join([head, *constants, *lines, f"output {list(shapes)[-1]}"])


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed):
    graph = sweep(parse_graph(random_program(seed)))
    x = np.random.default_rng(seed).standard_normal(graph.inputs[0].type.shape).astype(np.float32)
    wanted, content = float64_values(graph, [x]), write_tflite(graph)
    assert not check_tflite(content, graph)
    seen = TfliteRunner(content).tensors([x])
    for name in graph.activations:
        tolerance = 1e-5 * max(np.abs(wanted[name]).max(), 1e-3)
        np.testing.assert_allclose(seen[name], wanted[name], rtol=0, atol=tolerance, err_msg=name)


# the file


def test_file_is_laid_out_as_the_schema_asks():
    content = write_tflite(quantized_graph("several ops"))
    model = schema.Model.GetRootAs(content, 0)
    assert content[4:8] == b"TFL3"
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if not buffer.DataIsNone():
            start = buffer.DataAsNumpy().__array_interface__["data"][0]
            assert (start - np.frombuffer(content, np.uint8).__array_interface__["data"][0]) % 16 == 0
    signature = model.SignatureDefs(0)
    assert signature.SignatureKey() == b"serving_default"
    assert (signature.Inputs(0).Name(), signature.Outputs(0).Name()) == (b"x", b"y")


def test_versions_are_the_lowest_that_hold():
    found = {}
    for name in (
        "several ops",
        "conv2d groups",
        "linear rank 3",
        "pad",
        "slice",
        "softmax last",
        "mul",
        "hardswish",
    ):
        found |= {operator.name: operator.version for operator in parse(write_tflite(quantized_graph(name))).operators}
        found |= {f"{o.name} float": o.version for o in parse(write_tflite(float_graph(name))).operators}
    assert found["CONV_2D"] == 6  # groups; 3 without
    assert parse(write_tflite(quantized_graph("conv2d valid"))).operators[0].version == 3
    assert parse(write_tflite(quantized_graph("linear"))).operators[0].version == 4
    assert found["FULLY_CONNECTED"] == 5  # more than rank 2 is kept
    assert (found["DEPTHWISE_CONV_2D"], found["ADD"], found["MEAN"], found["PAD"]) == (3, 2, 2, 2)
    assert (found["SLICE"], found["SOFTMAX"], found["HARD_SWISH"]) == (2, 2, 1)
    assert (found["DEPTHWISE_CONV_2D float"], found["ADD float"], found["PAD float"]) == (1, 1, 1)


def test_equal_constants_are_stored_once():
    same = np.ones((50, 40), np.float32)
    text = "input x: float32[1,40]\nconstant v: float32[50,40]\nconstant w: float32[50,40]\n"
    graph = parse_graph(text + "y = linear(x, v)\nz = linear(x, w)\noutput y, z", {"v": same, "w": same.copy()})
    content = write_tflite(graph)
    assert not check_tflite(content, graph)
    assert len(content) < 1.5 * same.nbytes


def test_a_weight_read_in_two_orders_is_in_the_file_twice():
    text = IMAGE + "input z: float32[1,324]\nconstant w: float32[7,324]\n"
    graph = parse_graph(text + "f = reshape(x) shape=(1,324)\ny = linear(f, w)\nu = linear(z, w)\noutput y, u")
    content = write_tflite(graph)
    assert not check_tflite(content, graph)
    inputs = [np.random.default_rng(0).standard_normal(v.type.shape).astype(np.float32) for v in graph.inputs]
    wanted = float64_values(graph, inputs)
    for output, name in zip(TfliteRunner(content).run(inputs), graph.outputs, strict=True):
        np.testing.assert_allclose(output, wanted[name], rtol=0, atol=1e-5 * np.ptp(wanted[name]))


def test_more_than_the_format_holds(monkeypatch):
    monkeypatch.setattr(flatbuffer, "LIMIT_BYTES", 4000)
    with pytest.raises(BudgetError, match="2 GiB"):
        write_tflite(float_graph("several ops"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": None}, "y has no scale"),
        ({"w": None}, "w is float"),
        ({"y": DType.UINT8}, "y is uint8"),
        ({"x": None, "b": None}, "x has no scale"),
    ],
)
def test_what_is_no_whole_integer_graph_is_refused(changed, message):
    model = quantized_graph("conv2d valid")
    params = {name: value for name, value in model.params.items() if changed.get(name, True) is not None}
    params |= {n: replace(model.params[n], dtype=dtype) for n, dtype in changed.items() if dtype is not None}
    with pytest.raises(UnsupportedError, match=message):
        write_tflite(QuantizedGraph(model.graph, params))


def test_a_constant_is_no_output():
    graph = Graph((), ("c",), (), {"c": np.ones(3, np.float32)})
    with pytest.raises(UnsupportedError, match="output c is a constant"):
        write_tflite(graph)


def test_a_computed_weight_is_refused():
    text = "input x: float32[3,20]\ninput w: float32[7,20]\ny = linear(x, w)\noutput y"
    with pytest.raises(UnsupportedError, match="y reads w, which is computed"):
        write_tflite(parse_graph(text))


def test_an_input_may_be_an_output():
    graph = parse_graph("input x: float32[1,4,9,9]\ny = relu(x)\noutput x, y")
    inputs = samples("relu")
    for kernels in ("xnnpack", "reference"):
        x, _ = TfliteRunner(write_tflite(graph), kernels=kernels).run(inputs)
        np.testing.assert_array_equal(x, inputs[0])


def test_check_finds_what_was_changed():
    model = quantized_graph("several ops")
    content = write_tflite(model)
    values = np.ascontiguousarray(model.integers["w"].transpose(0, 2, 3, 1)).tobytes()
    at = content.index(values)
    assert check_tflite(content[: at + 5] + b"\x01\x02" + content[at + 7 :], model) == ["w: 2 of 288 values differ"]
    scale = model.params["y"].scale.tobytes()
    found = check_tflite(content.replace(scale, np.float32(0.5).tobytes()), model)
    assert len(found) == 1
    assert found[0].startswith("y: scale is [0.5]")
    assert check_tflite(write_tflite(float_graph("several ops")), model)
    assert check_tflite(content, quantized_graph("conv2d valid"))


def test_check_finds_another_channel_axis():
    text = IMAGE + "constant w: float32[4,4,1,1]\ny = conv2d(x, w)\noutput y"
    graph = parse_graph(text)
    model = assign_params(graph, {"x": (-3.0, 3.0), "y": (-3.0, 3.0)}, Scheme())
    other = QuantizedGraph(model.graph, {**model.params, "w": replace(model.params["w"], axis=1)})
    assert "w: channel axis is 0, not 3" in check_tflite(write_tflite(model), other)


# damaged files


def test_no_file_at_all():
    for content in (
        b"",
        b"TFL3",
        b"\x00" * 4 + b"TFL3",
        b"not a model, but long enough to be one",
        b"\x00" * 100,
    ):
        with pytest.raises(OptionError, match="TFLite file"):
            read_tflite(content)


@pytest.mark.parametrize("name", ["several ops", "flatten, relu, add, linear", "permute of a matrix"])
def test_damage_is_one_message(name):
    model = quantized_graph(name)
    sound = write_tflite(model)
    draw = random.Random(0)
    refused = 0
    for _ in range(400):
        content = bytearray(sound)
        kind = draw.randrange(3)
        if kind == 0:
            del content[draw.randrange(len(content)) :]
        elif kind == 1:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        else:
            at = draw.randrange(len(content) // 4) * 4
            content[at : at + 4] = draw.choice([0, 1, 2**31, 2**32 - 1, len(sound)]).to_bytes(4, "little")
        try:
            read_tflite(bytes(content))
            layouts(bytes(content))
            check_tflite(bytes(content), model)
        except (OptionError, UnsupportedError) as error:
            refused += 1
            assert str(error)
            assert error.__class__ in (OptionError, UnsupportedError)
    assert refused > 100


# running


def test_inputs_that_do_not_fit():
    runner = TfliteRunner(write_tflite(quantized_graph("add")))
    good = integer_samples("add")
    for inputs in (
        good[:1],
        [good[0], good[1][:, :3]],
        [good[0].astype(np.float32), good[1]],
        [good[0][0], good[1]],
    ):
        with pytest.raises(SampleError):
            runner.run(inputs)
    assert runner.run(good)[0].shape == (1, 4, 9, 9)


def test_what_the_runtime_refuses_is_told_in_its_words(monkeypatch):
    monkeypatch.setattr(emitter, "lowest_version", lambda *given: 99)
    monkeypatch.setattr(writer, "oldest_runtime", lambda codes, is_half: "2.0.0")
    with pytest.raises(UnsupportedError, match=r"litert-xnnpack refuses this file: .*'CONV_2D' version '99'"):
        TfliteRunner(write_tflite(float_graph("conv2d valid")))


def test_packages_that_are_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(OptionError, match="tflite_runtime is not installed"):
        TfliteRunner(write_tflite(float_graph("relu")), package="tflite_runtime")


def test_a_kernel_that_could_end_the_process_is_not_run():
    with pytest.raises(UnsupportedError, match="SOFTMAX over 1000"):
        TfliteRunner(write_tflite(quantized_graph("softmax long")), kernels="reference")


def test_names(capfd):
    content = write_tflite(float_graph("relu"))
    named = [TfliteRunner(content, kernels=kernels).name for kernels in ("xnnpack", "builtin", "reference")]
    assert named == ["litert-xnnpack", "litert-builtin", "litert-reference"]
    assert capfd.readouterr().err == ""


def test_a_plain_network_has_nothing_but_its_layers():
    text = """
        input x: float32[1,3,32,32]
        constant s.weight: float32[8,3,3,3]
        constant d.weight: float32[8,1,3,3]
        constant p.weight: float32[8,8,1,1]
        constant fc.weight: float32[10,128]
        s = conv2d(x, s.weight) stride=(2,2) padding=(1,1,1,1)
        sr = relu6(s)
        d = depthwise_conv2d(sr, d.weight) padding=(1,1,1,1)
        dr = relu6(d)
        p = conv2d(dr, p.weight)
        a = add(p, sr)
        m = max_pool2d(a) kernel_size=(4,4) stride=(4,4)
        f = reshape(m) shape=(1,128)
        y = linear(f, fc.weight)
        output y
    """
    graph = fold(parse_graph(text))
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    values = float64_values(graph, [x])
    model = assign_params(graph, {n: (float(v.min()), float(v.max())) for n, v in values.items()}, Scheme())
    content = write_tflite(model)
    assert read_tflite(content).ops == {
        "PAD": 1,
        "CONV_2D": 2,
        "DEPTHWISE_CONV_2D": 1,
        "ADD": 1,
        "MAX_POOL_2D": 1,
        "RESHAPE": 1,
        "FULLY_CONNECTED": 1,
    }
    assert TfliteRunner(content).undelegated_ops() == {}
