"""Every op, float and int8, as onnxruntime executes it against float64 arithmetic written here."""

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from toolchain.formats.artifact import InOut
from toolchain.formats.onnx import ONNX_LOWERINGS, OPSETS, OnnxRunner, check_onnx, write_onnx
from toolchain.graph import DType, Graph, Op, parse_graph
from toolchain.quantization import Scheme, assign_params, quantize

IMAGE = "input x: float32[2,4,9,9]\n"

CASES = {
    "conv2d": IMAGE + "constant w: float32[6,4,3,3]\ny = conv2d(x, w)\noutput y",
    "conv2d bias, stride, asymmetric padding": IMAGE
    + "constant w: float32[6,4,3,3]\nconstant b: float32[6]\n"
    + "y = conv2d(x, w, b) stride=(2,2) padding=(0,0,1,1) activation=relu\noutput y",
    "conv2d groups, dilation": IMAGE
    + "constant w: float32[6,2,3,2]\nconstant b: float32[6]\n"
    + "y = conv2d(x, w, b) groups=2 dilation=(2,1) padding=(2,1,0,1) activation=relu6\noutput y",
    "conv2d pointwise": IMAGE + "constant w: float32[8,4,1,1]\nconstant b: float32[8]\ny = conv2d(x, w, b)\noutput y",
    "depthwise_conv2d": IMAGE
    + "constant w: float32[4,1,3,3]\nconstant b: float32[4]\n"
    + "y = depthwise_conv2d(x, w, b) padding=(1,1,1,1) activation=relu6\noutput y",
    "depthwise_conv2d multiplier, stride": IMAGE
    + "constant w: float32[8,1,3,3]\ny = depthwise_conv2d(x, w) stride=(2,1) padding=(1,0,2,1)\noutput y",
    "depthwise_conv2d dilation": IMAGE
    + "constant w: float32[4,1,3,3]\nconstant b: float32[4]\n"
    + "y = depthwise_conv2d(x, w, b) dilation=(2,2)\noutput y",
    "linear": "input x: float32[3,20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b)\noutput y",
    "linear no bias, relu": "input x: float32[3,20]\nconstant w: float32[7,20]\n"
    + "y = linear(x, w) activation=relu\noutput y",
    "linear rank 3": "input x: float32[2,5,20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b) activation=relu6\noutput y",
    "linear rank 1": "input x: float32[20]\nconstant w: float32[7,20]\nconstant b: float32[7]\n"
    + "y = linear(x, w, b)\noutput y",
    "relu": IMAGE + "y = relu(x)\noutput y",
    "relu6": IMAGE + "y = relu6(x)\noutput y",
    "leaky_relu": IMAGE + "y = leaky_relu(x) slope=0.2\noutput y",
    "sigmoid": IMAGE + "y = sigmoid(x)\noutput y",
    "tanh": IMAGE + "y = tanh(x)\noutput y",
    "hardswish": IMAGE + "y = hardswish(x)\noutput y",
    "softmax last": "input x: float32[3,10]\ny = softmax(x) axis=1\noutput y",
    "softmax channels": IMAGE + "y = softmax(x) axis=1\noutput y",
    "softmax long": "input x: float32[2,1000]\ny = softmax(x) axis=1\noutput y",
    "add": IMAGE + "input z: float32[2,4,9,9]\ny = add(x, z)\noutput y",
    "add relu": IMAGE + "input z: float32[2,4,9,9]\ny = add(x, z) activation=relu\noutput y",
    "add to itself": IMAGE + "y = add(x, x)\noutput y",
    "add constant channels": IMAGE + "constant c: float32[4,1,1]\ny = add(x, c) activation=relu6\noutput y",
    "add broadcast": IMAGE + "input z: float32[4,1,9]\ny = add(x, z)\noutput y",
    "sub": IMAGE + "input z: float32[2,4,9,9]\ny = sub(x, z)\noutput y",
    "sub constant": IMAGE + "constant c: float32[1,4,1,1]\ny = sub(x, c) activation=relu\noutput y",
    "sub from constant": IMAGE + "constant c: float32[]\ny = sub(c, x)\noutput y",
    "mul": IMAGE + "input z: float32[2,4,9,9]\ny = mul(x, z)\noutput y",
    "mul scalar": IMAGE + "constant c: float32[]\ny = mul(x, c)\noutput y",
    "mul gate": IMAGE + "input z: float32[2,4,1,1]\ny = mul(x, z) activation=relu6\noutput y",
    "max_pool2d": IMAGE + "y = max_pool2d(x) kernel_size=(2,2) stride=(2,2)\noutput y",
    "max_pool2d padding": IMAGE + "y = max_pool2d(x) kernel_size=(3,3) stride=(2,2) padding=(1,1,0,1)\noutput y",
    "avg_pool2d": IMAGE + "y = avg_pool2d(x) kernel_size=(3,3) stride=(3,3)\noutput y",
    "avg_pool2d padding": IMAGE + "y = avg_pool2d(x) kernel_size=(3,2) stride=(2,1) padding=(1,1,0,1)\noutput y",
    "mean image": IMAGE + "y = mean(x) axes=(2,3)\noutput y",
    "mean image keepdim": IMAGE + "y = mean(x) axes=(2,3) keepdim=True\noutput y",
    "mean channels": IMAGE + "y = mean(x) axes=(1,)\noutput y",
    "mean sequence keepdim": "input x: float32[2,7,12]\ny = mean(x) axes=(1,) keepdim=True\noutput y",
    "mean last": "input x: float32[2,7,12]\ny = mean(x) axes=(2,)\noutput y",
    "mean of everything": IMAGE + "y = mean(x) axes=(0,1,2,3)\noutput y",
    "reshape": IMAGE + "y = reshape(x) shape=(2,324)\noutput y",
    "permute": IMAGE + "y = permute(x) axes=(0,2,3,1)\noutput y",
    "concat": IMAGE + "input z: float32[2,3,9,9]\ny = concat(x, z) axis=1\noutput y",
    "concat with itself": IMAGE + "y = concat(x, x, x) axis=2\noutput y",
    "concat with a constant": IMAGE + "constant c: float32[2,1,9,9]\ny = concat(x, c) axis=1\noutput y",
    "concat of relu and signed": IMAGE
    + "constant w: float32[2,4,1,1]\nr = conv2d(x, w) activation=relu\n"
    + "y = concat(x, r) axis=1\noutput y",
    "concat of relu6 and wide": IMAGE
    + "constant w: float32[2,4,1,1]\nconstant c: float32[]\nr = conv2d(x, w) activation=relu6\n"
    + "m = mul(x, c)\nq = relu6(x)\ny = concat(m, r, q) axis=1\noutput y",
    "pad": IMAGE + "y = pad(x) amounts=(0,0,1,2,0,0,2,1)\noutput y",
    "pad value": IMAGE + "y = pad(x) amounts=(0,1,0,2,0,0,0,1) value=0.75\noutput y",
    "slice": IMAGE + "y = slice(x) axes=(1,2) starts=(1,0) stops=(3,9) steps=(1,2)\noutput y",
    "two outputs": IMAGE + "r = relu(x)\ny = max_pool2d(r) kernel_size=(2,2)\noutput r, y",
}


def evaluate(graph: Graph, constants: dict, inputs: list) -> dict:
    """Every tensor of the graph in float64."""
    values = {name: torch.tensor(np.asarray(array, np.float64)) for name, array in constants.items()}
    values |= {v.name: torch.tensor(np.asarray(a, np.float64)) for v, a in zip(graph.inputs, inputs, strict=True)}
    for node in graph.nodes:
        result = ORACLES[node.op](node, *(values[name] for name in node.inputs))
        activation = node.attributes.get("activation", "none")
        result = {"none": result, "relu": result.clamp(min=0), "relu6": result.clamp(0, 6)}[activation]
        values[node.output] = result
    return {name: value.numpy() for name, value in values.items()}


def _padded(node, x, value=0.0):
    top, left, bottom, right = node["padding"]
    return functional.pad(x, (left, right, top, bottom), value=value)


def _conv(node, x, w, b=None):
    groups = x.shape[1] if node.op is Op.DEPTHWISE_CONV2D else node["groups"]
    return functional.conv2d(_padded(node, x), w, b, node["stride"], 0, node["dilation"], groups)


def _avg_pool(node, x):
    def sums(values):
        return functional.avg_pool2d(_padded(node, values), node["kernel_size"], node["stride"], divisor_override=1)

    return sums(x) / sums(torch.ones_like(x))


def _pad(node, x):
    rank = x.ndim
    pairs = [(node["amounts"][axis], node["amounts"][axis + rank]) for axis in reversed(range(rank))]
    return functional.pad(x, [amount for pair in pairs for amount in pair], value=node["value"])


def _slice(node, x):
    where = [slice(None)] * x.ndim
    for axis, start, stop, step in zip(*(node[k] for k in ("axes", "starts", "stops", "steps")), strict=True):
        where[axis] = slice(start, stop, step)
    return x[tuple(where)]


ORACLES = {
    Op.CONV2D: _conv,
    Op.DEPTHWISE_CONV2D: _conv,
    Op.LINEAR: lambda node, x, w, b=None: functional.linear(x, w, b),
    Op.BATCH_NORM: lambda node, x, w, b, mean, variance: functional.batch_norm(
        x, mean, variance, w, b, eps=node["epsilon"]
    ),
    Op.RELU: lambda node, x: functional.relu(x),
    Op.RELU6: lambda node, x: functional.relu6(x),
    Op.LEAKY_RELU: lambda node, x: functional.leaky_relu(x, node["slope"]),
    Op.SIGMOID: lambda node, x: torch.sigmoid(x),
    Op.TANH: lambda node, x: torch.tanh(x),
    Op.HARDSWISH: lambda node, x: functional.hardswish(x),
    Op.SOFTMAX: lambda node, x: torch.softmax(x, node["axis"]),
    Op.ADD: lambda node, left, right: left + right,
    Op.SUB: lambda node, left, right: left - right,
    Op.MUL: lambda node, left, right: left * right,
    Op.MAX_POOL2D: lambda node, x: functional.max_pool2d(
        _padded(node, x, -torch.inf), node["kernel_size"], node["stride"]
    ),
    Op.AVG_POOL2D: _avg_pool,
    Op.MEAN: lambda node, x: x.mean(node["axes"], keepdim=node["keepdim"]),
    Op.RESHAPE: lambda node, x: x.reshape(node["shape"]),
    Op.PERMUTE: lambda node, x: x.permute(node["axes"]),
    Op.CONCAT: lambda node, *xs: torch.cat(xs, node["axis"]),
    Op.PAD: _pad,
    Op.SLICE: _slice,
}


def random_inputs(graph, seed=0):
    random = np.random.default_rng(seed)
    return [(2 * random.standard_normal(v.type.shape)).astype(np.float32) for v in graph.inputs]


def quantized_case(text):
    """The graph of a case with parameters from what it computes on random inputs."""
    graph = parse_graph(text)
    values = evaluate(graph, graph.constants, random_inputs(graph))
    ranges = {name: (float(values[name].min()), float(values[name].max())) for name in graph.activations}
    return assign_params(graph, ranges, Scheme())


def real(q, params):
    scale = params.broadcast(params.scale, q.ndim).astype(np.float64)
    return (q.astype(np.float64) - params.broadcast(params.zero_point, q.ndim)) * scale


def exact_integers(model, integers):
    """What each node makes of the integers it is given, node by node: {tensor: integers}."""
    known = dict(model.integers) | dict(zip(model.graph.input_names, integers, strict=True))
    for node in model.graph.nodes:
        part = model.extract((node,)).graph
        constants = {name: real(known[name], model.params[name]) for name in part.constants}
        inputs = [real(known[name], model.params[name]) for name in part.input_names]
        known[node.output] = quantize(evaluate(part, constants, inputs)[node.output], model.params[node.output])
    return known


@pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
def test_float(text):
    graph = parse_graph(text)
    inputs = random_inputs(graph, seed=1)
    content = write_onnx(graph)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    assert check_onnx(content, graph) == []
    wanted = evaluate(graph, graph.constants, inputs)
    for name, found in zip(graph.outputs, OnnxRunner(content, graph).run(inputs), strict=True):
        extent = wanted[name].max() - wanted[name].min()
        assert found.shape == graph.types[name].shape
        np.testing.assert_allclose(found, wanted[name], rtol=0, atol=1e-5 * max(extent, 1e-3))


EXECUTIONS = {
    "uint8": (DType.UINT8, False),
    "int8": (DType.INT8, False),
    "int8 on int8 kernels": (DType.INT8, True),
}


@pytest.mark.parametrize(("dtype", "int8_kernels"), EXECUTIONS.values(), ids=EXECUTIONS.keys())
@pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
def test_int8_is_within_a_step_of_exact(text, dtype, int8_kernels):
    model = quantized_case(text)
    content = write_onnx(model, activation_dtype=dtype)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    assert check_onnx(content, model) == []
    random = np.random.default_rng(2)
    inputs = [random.integers(-128, 128, v.type.shape).astype(np.int8) for v in model.graph.inputs]
    found = OnnxRunner(content, model, int8_kernels=int8_kernels).tensors(inputs)
    assert set(found) == set(model.graph.activations)
    # each op is judged on the integers that the file's own op before it made
    for node in model.graph.nodes:
        part = model.extract((node,))
        exact = exact_integers(part, [found[name] for name in part.graph.input_names])
        steps = found[node.output].astype(int) - exact[node.output]
        assert found[node.output].dtype == np.int8
        assert np.abs(steps).max() <= 1, node


@pytest.mark.parametrize("dtype", [DType.UINT8, DType.INT8])
@pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
def test_float_ends_are_the_integer_ones_converted(text, dtype):
    model = quantized_case(text)
    inputs = random_inputs(model.graph, seed=3)
    names = model.graph.input_names
    integers = [quantize(array, model.params[name]) for array, name in zip(inputs, names, strict=True)]
    inner = OnnxRunner(write_onnx(model, activation_dtype=dtype), model, int8_kernels=True).run(integers)
    content = write_onnx(model, activation_dtype=dtype, in_out=InOut.FLOAT)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    assert check_onnx(content, model) == []
    runner = OnnxRunner(content, model, int8_kernels=True)
    seen = runner.tensors(inputs)
    for name, float_output, integer_output in zip(model.graph.outputs, runner.run(inputs), inner, strict=True):
        assert float_output.dtype == np.float32
        np.testing.assert_array_equal(float_output, real(integer_output, model.params[name]).astype(np.float32))
        np.testing.assert_array_equal(seen[name], integer_output)


@pytest.mark.parametrize("dtype", [DType.UINT8, DType.INT8])
@pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
def test_onnxruntime_computes_in_integers(text, dtype):
    model = quantized_case(text)
    runner = OnnxRunner(write_onnx(model, activation_dtype=dtype), model, int8_kernels=True)
    assert runner.executed_float_ops() == FLOAT_OPS.get(model.graph.nodes[-1].op, {})


FLOAT_OPS = {Op.HARDSWISH: {"DequantizeLinear": 1, "HardSigmoid": 1, "Mul": 1, "QuantizeLinear": 1}}
"""Ops without an integer kernel in onnxruntime, and what it executes for them."""


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset(opset):
    for text in CASES.values():
        graph, model = parse_graph(text), quantized_case(text)
        inputs = random_inputs(graph, seed=4)
        for written, given in (
            (graph, inputs),
            (model, [np.zeros(v.type.shape, np.int8) for v in graph.inputs]),
        ):
            content = write_onnx(written, opset=opset)
            proto = onnx.load_from_string(content)
            onnx.checker.check_model(proto, full_check=True)
            assert proto.opset_import[0].version == opset
            reference = OnnxRunner(write_onnx(written), written).run(given)
            for found, wanted in zip(OnnxRunner(content, written).run(given), reference, strict=True):
                assert np.abs(found.astype(float) - wanted).max() <= (1 if found.dtype == np.int8 else 1e-5)


def test_batch_norm_stays_float():
    text = "input x: float32[2,4,5]\n" + "".join(f"constant {n}: float32[4]\n" for n in "wbm")
    text += "constant v: float32[4]\ny = batch_norm(x, w, b, m, v) epsilon=0.001\noutput y"
    graph = parse_graph(text, {"v": np.array([0.5, 1, 2, 3], np.float32)})
    (found,) = OnnxRunner(write_onnx(graph), graph).run(inputs := random_inputs(graph))
    np.testing.assert_allclose(found, evaluate(graph, graph.constants, inputs)["y"], atol=1e-5)


def test_every_op_has_a_lowering():
    assert set(Op) == set(ONNX_LOWERINGS)
