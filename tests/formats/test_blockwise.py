"""int4 weights with a scale for every block of inputs: what runtimes compute, and what reading back finds."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace

import flatbuffers
import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema

import toolchain
from tests.formats.test_tflite_runtime import CHILD, PYTHON
from tests.zoo.architectures import build_architecture
from toolchain import Calibrate, Quantize, Trace, samples_from
from toolchain.engine.simulate import Simulator, simulate
from toolchain.errors import OptionError, ToolchainError, UnsupportedError
from toolchain.formats.onnx import OnnxRunner, check_onnx, read_onnx, write_onnx
from toolchain.formats.onnx.reader import values_of
from toolchain.formats.tflite import TfliteRunner, check_tflite, read_tflite, write_tflite
from toolchain.graph import DType, Graph, Op, parse_graph
from toolchain.quantization import (
    NumberFormat,
    QuantizedGraph,
    Scheme,
    assign_params,
    dequantize,
    dequantize_outputs,
    quantize_inputs,
)

BLOCKED = Scheme().with_numbers(NumberFormat.W4_BLOCK)
INPUTS, OUTPUTS = 256, 24


def layer(shape: str = "4", activation: str = "none", bias: bool = True) -> Graph:
    return parse_graph(f"""
input x: float32[{shape},{INPUTS}]
constant w: float32[{OUTPUTS},{INPUTS}]
{f"constant b: float32[{OUTPUTS}]" if bias else ""}
y = linear(x, w{", b" if bias else ""}) activation={activation}
output y
""")


def network() -> Graph:
    """Two layers, one activation between them."""
    return parse_graph(f"""
input x: float32[4,{INPUTS}]
constant a.weight: float32[64,{INPUTS}]
constant a.bias: float32[64]
constant b.weight: float32[{OUTPUTS},64]
a = linear(x, a.weight, a.bias) activation=relu
b = linear(a, b.weight)
output b
""")


def spread(graph: Graph) -> Graph:
    """The same with weights whose blocks are of very different sizes, so that a wrong scale shows."""
    random = np.random.default_rng(0)
    changed = {}
    for name, weight in graph.constants.items():
        if weight.ndim == 2 and weight.shape[1] % 32 == 0:
            sizes = np.exp(random.normal(0, 2, (len(weight), weight.shape[1] // 32)))
            changed[name] = (weight * np.repeat(sizes, 32, axis=1)).astype(np.float32)
    return graph.with_constants(changed)


def blocked(graph: Graph, block: int = 32) -> QuantizedGraph:
    return assign_params(spread(graph), {}, replace(BLOCKED, weight_block=block))


def meaning(model: QuantizedGraph, x: np.ndarray) -> np.ndarray:
    """The layer `y` in numpy."""
    w = model.params["w"]
    y = x.astype(np.float64) @ dequantize(model.integers["w"], w).astype(np.float64).T
    y = y + model.graph.constants.get("b", np.zeros(OUTPUTS))
    return {"none": y, "relu": np.maximum(y, 0), "relu6": np.clip(y, 0, 6)}[model.graph.nodes[0]["activation"]]


def magnitudes(model: QuantizedGraph, x: np.ndarray) -> np.ndarray:
    """`|x| |W|`: what rounding errors of products and sums are shares of."""
    w = np.abs(dequantize(model.integers["w"], model.params["w"]).astype(np.float64))
    return np.abs(x) @ w.T + np.abs(model.graph.constants.get("b", np.zeros(OUTPUTS)))


def exact_inputs(shape: tuple[int, ...]) -> np.ndarray:
    """Inputs that runtimes quantize to themselves, in steps of a 255th of a row's range or of a 127th of what a block
    reaches: nothing but 0 and 127."""
    return 127 * np.random.default_rng(1).integers(0, 2, shape).astype(np.float32)


# float32 sums of 256 products, each off by at most 2^-24 of the sum so far
SUMMED = 2.0**-24 * INPUTS
CASES = [(4, "none", True), (1, "relu", True), (4, "relu6", False), (2, "none", False)]


@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize(("rows", "activation", "bias"), CASES)
@pytest.mark.parametrize("lead", ["", "3,"])
def test_runtimes_compute_what_the_integers_and_scales_say(block, rows, activation, bias, lead):
    model = blocked(layer(f"{lead}{rows}", activation, bias), block)
    x = exact_inputs(model.graph.inputs[0].type.shape)
    lite = (TfliteRunner(write_tflite(model), kernels=kernels) for kernels in ("xnnpack", "builtin"))
    for runner in (OnnxRunner(write_onnx(model), model), *lite):
        (found,) = runner.run([x])
        error = np.abs(found - meaning(model, x))
        assert np.all(error <= SUMMED * magnitudes(model, x)), runner.name


def test_what_is_quantized_on_the_way_is_within_its_step():
    model = blocked(layer())
    x = np.random.default_rng(2).normal(size=(4, INPUTS)).astype(np.float32)
    # int8 of a row, or of its blocks: at most half a step of max |x| / 127 a value, and as much from a zero point
    row = np.abs(x).max(axis=1, keepdims=True) / 127
    allowed = magnitudes(model, np.broadcast_to(row, x.shape)) + SUMMED * magnitudes(model, x)
    for runner in (OnnxRunner(write_onnx(model), model), TfliteRunner(write_tflite(model))):
        assert np.all(np.abs(runner.run([x])[0] - meaning(model, x)) <= allowed), runner.name


@pytest.mark.parametrize("block", [32, 64])
def test_every_layer_takes_the_fast_kernel(block):
    model = blocked(network(), block)
    x = np.random.default_rng(2).normal(size=(4, INPUTS)).astype(np.float32)
    runner = OnnxRunner(write_onnx(model), model)
    runner.run([x])
    assert runner.executed_ops() == {"MatMulNBits": 2, "Max": 1}
    assert TfliteRunner(write_tflite(model)).undelegated_ops() == {}


def test_files_hold_what_was_asked_for():
    model = blocked(network(), 64)
    onnx_file, tflite_file = write_onnx(model), write_tflite(model)
    assert check_onnx(onnx_file, model) == [] and check_tflite(tflite_file, model) == []
    onnx.checker.check_model(onnx.load_from_string(onnx_file), full_check=True)
    for facts in (read_onnx(onnx_file), read_tflite(tflite_file)):
        weight, wanted = facts.tensors["a.weight"], model.params["a.weight"]
        assert (weight.dtype, weight.axis, weight.block) == (DType.INT4, 0, 64)
        np.testing.assert_array_equal(np.asarray(weight.scale, np.float32).reshape(wanted.scale.shape), wanted.scale)
        assert weight.bytes == wanted.scale.size * 32  # two integers a byte
    assert read_tflite(tflite_file).tensors["a.weight/scales"].bytes == 2 * model.params["a.weight"].scale.size


def test_another_block_or_scale_is_found():
    model = blocked(network())
    params = model.params["a.weight"]
    coarser = replace(params, block=64, scale=params.scale[:, ::2], zero_point=np.zeros(()))
    halved = replace(params, scale=np.where(np.arange(params.scale.shape[1]) == 1, params.scale / 2, params.scale))
    for changed, words in ((coarser, "block"), (halved, "scale is")):
        other = replace(model, params={**model.params, "a.weight": changed})
        for lines in (check_onnx(write_onnx(other), model), check_tflite(write_tflite(other), model)):
            assert any(line.startswith("a.weight") and words in line for line in lines), lines


def changed_tflite(content: bytes, change) -> bytes:
    """The file after `change(model, weight)`."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    tensors = model.subgraphs[0].tensors
    change(model, next(tensor for tensor in tensors if tensor.name == b"a.weight"))
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _block_of_64(model, weight) -> None:
    weight.quantization.details.blockSize = 64


def _block_of_48(model, weight) -> None:
    weight.quantization.details.blockSize = 48


def _no_scales(model, weight) -> None:
    weight.quantization.details.scales = len(model.subgraphs[0].tensors)


def _integer_scales(model, weight) -> None:
    model.subgraphs[0].tensors[weight.quantization.details.scales].type = schema.TensorType.INT16


def _negative_scales(model, weight) -> None:
    buffer = model.buffers[model.subgraphs[0].tensors[weight.quantization.details.scales].buffer]
    buffer.data = (-np.asarray(buffer.data, np.uint8).view(np.float16)).view(np.uint8)


@pytest.mark.parametrize("change", [_block_of_64, _block_of_48, _no_scales, _integer_scales, _negative_scales])
def test_scales_that_do_not_fit_their_weight_are_refused(change):
    content = changed_tflite(write_tflite(blocked(network())), change)
    with pytest.raises(UnsupportedError if change is _integer_scales else OptionError, match="TFLite file"):
        read_tflite(content)


def test_a_changed_block_size_in_onnx_is_found_and_refused_by_its_runtime():
    model = blocked(network())
    proto = onnx.load_from_string(write_onnx(model))
    node = next(node for node in proto.graph.node if node.output[0].startswith("a/weight/real"))
    next(attribute for attribute in node.attribute if attribute.name == "block_size").i = 64
    content = proto.SerializeToString()
    assert "a.weight: block is 64, not 32" in check_onnx(content, model)
    with pytest.raises(UnsupportedError):
        OnnxRunner(content, model).run([np.zeros((4, INPUTS), np.float32)])


def test_scales_of_a_matrix_that_others_wrote_with_blocks_along_its_first_axis():
    model = blocked(network())
    proto = onnx.load_from_string(write_onnx(model))
    held = next(tensor for tensor in proto.graph.initializer if tensor.name == "a.weight/scale")
    assert held.dims == [INPUTS // 32, 64]
    # (in, out), read by its DequantizeLinear as it is
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "a.weight")
    weight.CopyFrom(onnx.helper.make_tensor("a.weight", onnx.TensorProto.INT8, (INPUTS, 64), values_of(weight).T))
    nodes = [node for node in proto.graph.node if node.output[0] not in ("a/weight", "a/weight/scale")]
    scale = onnx.numpy_helper.from_array(model.params["a.weight"].scale.T.copy(), "a/weight/scale")
    next(node for node in nodes if "a/weight" in node.input).input[0] = "a.weight"
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.append(scale)
    facts = read_onnx(proto.SerializeToString()).tensors["a.weight"]
    assert (facts.axis, facts.block) == (1, 32)
    np.testing.assert_array_equal(np.reshape(facts.scale, (64, -1)), model.params["a.weight"].scale)


def test_runtimes_that_would_compute_something_else_never_load_the_file(tmp_path):
    content = write_tflite(blocked(network()))
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (code,) = [code for code in parsed.operatorCodes if code.builtinCode == schema.BuiltinOperator.FULLY_CONNECTED]
    assert code.version == 14
    assert any(b"2.21.0" in bytes(buffer.data) for buffer in parsed.buffers if buffer.data is not None)
    with pytest.raises(UnsupportedError, match="cannot be trusted"):
        TfliteRunner(content, kernels="reference")
    if not PYTHON.is_file():
        pytest.skip("no .venv-tflite-runtime: `make test` sets it up")
    (tmp_path / "0.tflite").write_bytes(content)
    np.savez(tmp_path / "0.npz", x=np.zeros((4, INPUTS), np.float32))
    subprocess.run([PYTHON, CHILD, tmp_path], check=True, capture_output=True)
    assert "version '14'" in (tmp_path / "0.error").read_text()


IMAGES = """
input x: float32[2,4,4,4]
constant conv.weight: float32[4,4,3,3]
constant a.weight: float32[64,64]
constant a.bias: float32[64]
constant conv2.weight: float32[3,4,3,3]
y = conv2d(x, conv.weight) padding=(1,1,1,1)
f = reshape(y) shape=(2,64)
a = linear(f, a.weight, a.bias) activation=relu
g = reshape(a) shape=(2,4,4,4)
z = conv2d(g, conv2.weight) padding=(1,1,1,1)
output z
"""


def test_layers_between_images_keep_their_blocks_together():
    """TFLite flattens images channels last, and so orders the columns of a layer, but not those that share scales."""
    model = blocked(parse_graph(IMAGES))
    assert model.params["a.weight"].block == 32
    content = write_tflite(model)
    assert check_tflite(content, model) == [] and check_onnx(write_onnx(model), model) == []
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32)
    (wanted,) = simulate(model, [x])
    # int8 of what each layer reads costs the share of noise of its steps: 40 dB a layer and more
    for runner in (
        TfliteRunner(content),
        TfliteRunner(content, kernels="builtin"),
        OnnxRunner(write_onnx(model), model),
    ):
        (found,) = runner.run([x])
        assert np.square(found - wanted).sum() < 1e-3 * np.square(wanted).sum(), runner.name


def test_a_layer_of_blocks_may_stand_in_an_integer_graph():
    graph = spread(network())
    x = np.random.default_rng(0).normal(size=(4, INPUTS)).astype(np.float32)
    wanted = Simulator(QuantizedGraph(graph, {})).run([x])
    ranges = {name: (float(value.min()), float(value.max())) for name, value in {"x": x, **wanted}.items()}
    model = assign_params(graph, ranges, Scheme(), numbers={"a": NumberFormat.W4_BLOCK})
    assert model.params["a.weight"].block == 32 and model.params["b.weight"].block is None
    given = quantize_inputs(model, [x])
    (exact,) = dequantize_outputs(model, simulate(model, given))
    onnx_file, tflite_file = write_onnx(model), write_tflite(model)
    assert check_onnx(onnx_file, model) == [] and check_tflite(tflite_file, model) == []
    for runner in (OnnxRunner(onnx_file, model), TfliteRunner(tflite_file)):
        (found,) = dequantize_outputs(model, runner.run(given))
        # `a` is read rounded once more, in steps near those it was given in
        assert np.square(found - exact).sum() < 1e-3 * np.square(exact).sum(), runner.name


def test_a_transformer_deploys_with_blocks():
    module, inputs = build_architecture("bert", count=16)
    options = {"recipe": "int4_block", "store": None, "calibration_count": 4, "judging_count": 4}
    with tempfile.TemporaryDirectory() as folder:
        made = toolchain.deploy(module, calibration=list(zip(*inputs, strict=True)), out=folder, **options)
    layers = [node for node in made.model.graph.nodes if node.op is Op.LINEAR]
    for facts in (read_onnx(made.model.files["model.onnx"]), read_tflite(made.model.files["model.tflite"])):
        assert {facts.tensors[node.inputs[1]].block for node in layers} == {32}
    assert [result.runtime for result in made.validation.runtimes] == ["onnxruntime", "litert-xnnpack"]
    record = next(record for record in made.model.history if record.stage == "quantize")
    assert record.facts["per_block"] == len(layers) and record.facts["without_blocks"] == []


def test_layers_without_blocks_are_told():
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 8)).eval()
    samples = samples_from(np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32), judging_count=4)
    model = Quantize(numbers="w4_block")(
        Calibrate(samples=samples)(Trace(example_inputs=samples.first_inputs())(module))
    )
    told = model.history[-1].facts["without_blocks"]
    assert any(line.startswith("int4 without blocks: conv2d") and "0.weight" in line for line in told)
    assert any("inputs are no multiple of 32: 2.weight" in line for line in told)


@pytest.mark.parametrize("value", [16, 48, "32"])
def test_other_block_sizes_are_refused(value):
    with pytest.raises(ToolchainError, match="choose 32, 64, 128"):
        Quantize(numbers="w4_block", weight_block=value)
    with pytest.raises(ToolchainError, match="w4_block"):
        Quantize(numbers="w4", weight_block=32)
