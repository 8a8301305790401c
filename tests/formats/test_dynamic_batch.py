"""Files that take any number of samples at a time give what they give for one after the other."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from tests.graph.op_cases import CASES, case_graph, case_inputs, op_of
from tests.zoo.networks import build
from toolchain import Calibrate, Export, Quantize, Trace, samples_from
from toolchain.errors import UnsupportedError
from toolchain.formats.artifact import Format, InOut
from toolchain.formats.onnx import OnnxRunner, check_onnx, read_onnx, write_onnx
from toolchain.formats.tflite import TfliteRunner, check_tflite, write_tflite
from toolchain.graph import Graph, Op, fold, mixes_samples, parse_graph
from toolchain.job import Request, prepare
from toolchain.knowledge import find_shipped
from toolchain.quantization import QuantizedGraph, quantize

NETWORKS = ("mlp", "mnist", "mobilenet_v2")
BATCHES = (1, 3, 8)
WRITERS = {Format.ONNX: write_onnx, Format.TFLITE: write_tflite}
CHECKS = {Format.ONNX: check_onnx, Format.TFLITE: check_tflite}
# a sum over a whole network may be rounded otherwise where a kernel takes other blocks
FLOAT_ERROR = 1e-5


def network(name: str):
    if name != "mlp":
        return build(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 5)).eval()
    return module, np.random.default_rng(0).standard_normal((40, 12)).astype(np.float32)


@cache
def prepared(name: str):
    module, inputs = network(name)
    samples = samples_from(inputs, calibration_count=32, judging_count=8, batch_size=4)
    traced = Trace(example_inputs=samples.with_batch_size(1).first_inputs())(module)
    quantized = Quantize()(Calibrate(samples=samples)(traced)).quantized
    return fold(traced.graph), quantized, np.concatenate([batch.inputs[0] for batch in samples.judging()])


def runners(content: bytes, kind: Format, model: Graph | QuantizedGraph):
    if kind is Format.ONNX:
        return [OnnxRunner(content, model)]
    return [TfliteRunner(content, kernels=kernels) for kernels in ("xnnpack", "builtin", "reference")]


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_batches_give_the_integers_of_single_samples(name, kind):
    _, model, samples = prepared(name)
    content = WRITERS[kind](model, dynamic_batch=True)
    assert not CHECKS[kind](content, model)
    (given,) = model.graph.input_names
    integers = quantize(samples, model.params[given])
    fixed = WRITERS[kind](model)
    for runner, single in zip(runners(content, kind, model), runners(fixed, kind, model), strict=True):
        wanted = np.concatenate([single.run([integers[i : i + 1]])[0] for i in range(len(integers))])
        for batch in (*BATCHES, 1):
            np.testing.assert_array_equal(runner.run([integers[:batch]])[0], wanted[:batch], err_msg=runner.name)
        seen = runner.tensors([integers[:3]])
        for tensor in set(model.graph.activations) & set(seen):
            assert seen[tensor].shape == (3, *model.graph.types[tensor].shape[1:]), tensor


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize("name", NETWORKS)
def test_float_batches_give_what_single_samples_give(name, kind):
    graph, _, samples = prepared(name)
    content = WRITERS[kind](graph, dynamic_batch=True)
    assert not CHECKS[kind](content, graph)
    fixed = WRITERS[kind](graph)
    for runner, single in zip(runners(content, kind, graph), runners(fixed, kind, graph), strict=True):
        wanted = np.concatenate([single.run([samples[i : i + 1]])[0] for i in range(len(samples))])
        for batch in (*BATCHES, 1):
            (found,) = runner.run([samples[:batch]])
            assert found.shape == wanted[:batch].shape
            assert np.abs(found - wanted[:batch]).max() <= FLOAT_ERROR * np.ptp(wanted), runner.name


def test_onnx_names_axis_0_of_every_tensor():
    _, model, _ = prepared("mnist")
    proto = onnx.load_from_string(write_onnx(model, dynamic_batch=True))
    onnx.checker.check_model(proto, full_check=True)
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in values} == {"batch"}
    assert read_onnx(proto.SerializeToString()).tensors[model.graph.input_names[0]].shape[0] == -1


def test_tflite_has_shape_signatures_and_is_resized_by_the_interpreter():
    graph, _, samples = prepared("mnist")
    content = write_tflite(graph, dynamic_batch=True)
    (subgraph,) = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs
    activations = {*subgraph.inputs, *(index for op in subgraph.operators for index in op.outputs)}
    for index in activations:
        tensor = subgraph.tensors[index]
        assert (tensor.shapeSignature[0], tensor.shape[0]) == (-1, 1)
        assert [*tensor.shapeSignature[1:]] == [*tensor.shape[1:]]
    interpreter = Interpreter(model_content=content)
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    for batch in BATCHES:
        interpreter.resize_tensor_input(given["index"], (batch, *given["shape"][1:]))
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], samples[:batch].transpose(0, 2, 3, 1))
        interpreter.invoke()
        assert interpreter.get_tensor(output["index"]).shape == (batch, 10)


@pytest.mark.parametrize("kind", Format)
def test_float_ends_of_an_integer_file_follow_the_batch(kind):
    _, model, samples = prepared("mlp")
    content = WRITERS[kind](model, in_out=InOut.FLOAT, dynamic_batch=True)
    (runner, *_) = runners(content, kind, model)
    single = np.concatenate([runner.run([samples[i : i + 1]])[0] for i in range(3)])
    np.testing.assert_array_equal(runner.run([samples[:3]])[0], single)


def graph_of(text: str, shape: tuple[int, ...]) -> Graph:
    return parse_graph(f"input x: float32[{','.join(map(str, shape))}]\n{text}")


FOLLOWED = {
    "slice": ("y = slice(x) axes=(1,2) starts=(1,0) stops=(3,4) steps=(1,1)\noutput y", (1, 4, 6, 6)),
    "slice of every other": ("y = slice(x) axes=(1,2) starts=(1,0) stops=(3,6) steps=(1,2)\noutput y", (1, 4, 6, 6)),
    "reshape and permute": (
        "r = reshape(x) shape=(1,4,36)\np = permute(r) axes=(0,2,1)\ny = softmax(p) axis=2\noutput y",
        (1, 4, 6, 6),
    ),
    "space_to_depth": ("y = space_to_depth(x) block=2\noutput y", (1, 4, 6, 6)),
    "resize": ("y = resize(x) size=(12,12) mode=bilinear\noutput y", (1, 4, 6, 6)),
    "mean": ("m = mean(x) axes=(2,3)\ny = mul(m, m)\noutput y", (2, 4, 6, 6)),
    "matmul": ("t = permute(x) axes=(0,2,1)\ny = matmul(x, t)\noutput y", (1, 5, 7)),
    "permute at the end": ("r = relu(x)\ny = permute(r) axes=(0,2,3,1)\noutput y", (1, 1, 6, 6)),
    "concat": ("r = relu(x)\ny = concat(x, r) axis=1\noutput y", (1, 4, 6, 6)),
}


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize("case", FOLLOWED)
def test_ops_follow_the_batch(case, kind):
    text, shape = FOLLOWED[case]
    graph = graph_of(text, shape)
    content = WRITERS[kind](graph, dynamic_batch=True)
    assert not CHECKS[kind](content, graph)
    samples = np.random.default_rng(0).standard_normal((8, *shape[1:])).astype(np.float32)
    for runner in runners(content, kind, graph):
        wanted = np.concatenate([runner.run([samples[i : i + 1]])[0] for i in range(8)])
        for batch in BATCHES:
            np.testing.assert_allclose(runner.run([samples[:batch]])[0], wanted[:batch], atol=1e-5)


# what holds the batch in a constant that nothing stands for
UNFOLLOWED = {Op.CONV_TRANSPOSE2D, Op.EXPAND, Op.GATHER_ELEMENTS}


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize("case", [case for case in CASES if case != "concat with a constant"])
def test_every_op_follows_the_batch_or_is_refused(case, kind):
    graph = case_graph(case)
    if mixes_samples(graph) is not None or (kind is Format.TFLITE and op_of(case) in UNFOLLOWED):
        with pytest.raises(UnsupportedError, match="batch"):
            WRITERS[kind](graph, dynamic_batch=True)
        return
    content = WRITERS[kind](graph, dynamic_batch=True)
    assert not CHECKS[kind](content, graph)
    inputs = case_inputs(graph, batch=8)
    # the reference kernels lack some ops
    runner = OnnxRunner(content, graph) if kind is Format.ONNX else TfliteRunner(content)
    rows = [runner.run([array[i : i + 1] for array in inputs]) for i in range(8)]
    for batch in BATCHES:
        for found, *wanted in zip(runner.run([array[:batch] for array in inputs]), *rows[:batch], strict=True):
            np.testing.assert_allclose(found, np.concatenate(wanted), rtol=1e-5, atol=1e-5)


REFUSED = {
    "mean over the batch": ("y = mean(x) axes=(0,)\noutput y", "mean y"),
    "reshape across samples": ("y = reshape(x) shape=(4,9)\noutput y", "reshape y"),
    "concat of a constant": ("constant c: float32[1,2,6]\ny = concat(x, c) axis=1\noutput y", "concat y"),
}


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_follow_the_batch_is_refused_with_its_node(case, kind):
    text, named = REFUSED[case]
    with pytest.raises(UnsupportedError, match=named):
        WRITERS[kind](graph_of(text, (1, 6, 6)), dynamic_batch=True)


def test_tflite_refuses_operators_that_hold_the_batch_in_a_constant():
    text = "constant w: float32[3,4,2,2]\ny = conv_transpose2d(x, w) stride=(2,2)\noutput y"
    with pytest.raises(UnsupportedError, match="TRANSPOSE_CONV y: takes the whole size of its result"):
        write_tflite(graph_of(text, (1, 4, 6, 6)), dynamic_batch=True)


def test_inputs_without_one_batch_are_refused():
    graph = parse_graph("input x: float32[1,4]\ninput z: float32[4]\ny = add(x, z)\noutput y")
    with pytest.raises(UnsupportedError, match="axis 0 is not one batch"):
        write_onnx(graph, dynamic_batch=True)


def test_export_writes_dynamic_files_on_request_only():
    module, inputs = network("mlp")
    traced = Trace(example_inputs=(inputs[:1],))(module)
    for dynamic in (False, True):
        files = Export(dynamic_batch=dynamic)(traced).files
        assert (b"batch" in files["model.onnx"]) is dynamic


def test_a_target_asks_for_a_dynamic_batch(tmp_path):
    module, inputs = network("mlp")
    text = Path(find_shipped("targets", "arm64")).read_text()
    target = tmp_path / "server.toml"
    target.write_text(text.replace("\n[onnx]", "dynamic_batch = true\n\n[onnx]", 1))
    samples = samples_from(inputs, calibration_count=32, judging_count=8)
    job = prepare(Request(model=module, target=target, calibration=samples, out=tmp_path / "out"))
    assert job.pipeline.stages[-1].options()["dynamic_batch"] is True


def test_a_device_of_static_shapes_refuses_a_dynamic_batch(tmp_path):
    module, inputs = network("mlp")
    samples = samples_from(inputs, calibration_count=32, judging_count=8)
    with pytest.raises(UnsupportedError, match="ethos-u55-128 cannot take a dynamic batch"):
        prepare(
            Request(
                model=module,
                target="ethos-u55",
                calibration=samples,
                out=tmp_path / "out",
                options={"dynamic_batch": True},
            )
        )
