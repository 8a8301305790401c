"""What an ONNX file holds, how it is read back, and what damaged files, options and inputs lead to."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from toolchain.errors import OptionError, SampleError, UnsupportedError
from toolchain.formats.artifact import InOut
from toolchain.formats.onnx import OnnxRunner, check_onnx, read_onnx, session, write_onnx, writer
from toolchain.graph import DType, parse_graph
from toolchain.quantization import QuantizedGraph, Scheme, assign_params, quantize

NETWORK = """
input image: float32[1,3,16,16]
constant stem.weight: float32[8,3,3,3]
constant stem.bias: float32[8]
constant block.depth.weight: float32[8,1,3,3]
constant block.depth.bias: float32[8]
constant block.project.weight: float32[8,8,1,1]
constant block.project.bias: float32[8]
constant gain: float32[8,1,1]
constant head.weight: float32[10,16]
constant head.bias: float32[10]
stem = conv2d(image, stem.weight, stem.bias) stride=(2,2) padding=(0,0,1,1) activation=relu6
block.depth = depthwise_conv2d(stem, block.depth.weight, block.depth.bias) padding=(1,1,1,1) activation=relu6
block.project = conv2d(block.depth, block.project.weight, block.project.bias)
block = add(block.project, stem)
scaled = mul(block, gain)
tanh = tanh(scaled)
difference = sub(block, tanh)
pool = max_pool2d(stem) kernel_size=(3,3) stride=(1,1) padding=(1,1,1,1)
joined = concat(difference, pool) axis=1
padded = pad(joined) amounts=(0,0,1,1,0,0,1,1)
mean = mean(padded) axes=(2,3)
logits = linear(mean, head.weight, head.bias)
scores = softmax(logits) axis=1
output scores, block
"""


@pytest.fixture(scope="module")
def graph():
    return parse_graph(NETWORK)


@pytest.fixture(scope="module")
def model(graph):
    shown = OnnxRunner(write_onnx(graph), graph).tensors(samples(graph, 8))
    return assign_params(graph, {n: (float(v.min()), float(v.max())) for n, v in shown.items()}, Scheme())


def samples(graph, seed):
    random = np.random.default_rng(seed)
    return [random.standard_normal(v.type.shape).astype(np.float32) for v in graph.inputs]


def integer_samples(model, seed):
    pairs = zip(samples(model.graph, seed), model.graph.input_names, strict=True)
    return [quantize(array, model.params[name]) for array, name in pairs]


VARIANTS = [(dtype, in_out) for dtype in (DType.INT8, DType.UINT8) for in_out in InOut]


@pytest.mark.parametrize(("dtype", "in_out"), VARIANTS)
def test_quantized_file_holds_integers_under_the_graphs_names(model, dtype, in_out):
    content = write_onnx(model, activation_dtype=dtype, in_out=in_out)
    facts = read_onnx(content)
    assert (facts.inputs, facts.outputs) == (model.graph.input_names, model.graph.outputs)
    assert facts.bytes == len(content)
    for name, params in model.params.items():
        ends = (*facts.inputs, *facts.outputs)
        stored = facts.tensors[f"{name}/integer" if in_out is InOut.FLOAT and name in ends else name]
        weighted = name in model.graph.constants and name != "gain"
        shift = 128 if dtype is DType.UINT8 and not weighted else 0
        assert stored.dtype is (params.dtype if not shift else DType.UINT8)
        assert stored.shape == model.graph.types[name].shape
        assert stored.scale == tuple(params.scale.ravel().tolist())
        assert stored.zero_point == tuple((params.zero_point + shift).ravel().tolist())
        assert stored.axis == params.axis
        assert stored.is_constant == (name in model.graph.constants)
    assert check_onnx(content, model) == []


@pytest.mark.parametrize(("dtype", "in_out"), VARIANTS)
def test_quantized_file_holds_no_float_constant_but_scales_and_no_clamp(model, dtype, in_out):
    content = write_onnx(model, activation_dtype=dtype, in_out=in_out)
    proto = onnx.load_from_string(content)
    scales = {n.input[1] for n in proto.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    floats = {t.name for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    assert floats == scales
    # the stem shares the wide scale of the concatenation, where saturation does not clamp
    assert read_onnx(content).ops.get("Clip") == 1
    (clip,) = (node for node in proto.graph.node if node.op_type == "Clip")
    assert clip.output[0] == "stem"
    assert "Relu" not in read_onnx(content).ops


def test_weights_keep_their_integers_in_both_signednesses(model):
    for dtype in (DType.INT8, DType.UINT8):
        proto = onnx.load_from_string(write_onnx(model, activation_dtype=dtype))
        stored = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
        for name in ("stem.weight", "stem.bias", "head.weight", "head.bias"):
            assert stored[name].dtype == model.params[name].dtype.numpy
            np.testing.assert_array_equal(stored[name], model.integers[name])
        np.testing.assert_array_equal(stored["gain"].astype(int) - (128 if dtype is DType.UINT8 else 0),
                                      model.integers["gain"])  # fmt: skip


def test_names_of_nodes_are_the_graphs(graph, model):
    for written in (graph, model):
        named = [node.name for node in onnx.load_from_string(write_onnx(written)).graph.node]
        assert {node.name for node in graph.nodes} <= set(named)
        assert len(named) == len(set(named))


def test_metadata_tell_onnxruntime_the_scale_of_integer_ends(model):
    session = onnxruntime.InferenceSession(write_onnx(model), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    for name in (*model.graph.input_names, *model.graph.outputs):
        assert np.float32(metadata[f"{name}/scale"]) == model.params[name].scale
        assert int(metadata[f"{name}/zero_point"]) == model.params[name].zero_point + 128
    assert session.get_modelmeta().producer_name == "edge-toolchain"


def test_same_input_same_bytes(graph, model):
    again = assign_params(parse_graph(NETWORK), {n: p.bounds for n, p in model.params.items()}, Scheme())
    again = QuantizedGraph(again.graph, dict(reversed(model.params.items())))
    assert write_onnx(graph) == write_onnx(parse_graph(NETWORK))
    assert write_onnx(model) == write_onnx(again)
    assert write_onnx(model) != write_onnx(model, name="other")


@pytest.mark.parametrize(("dtype", "in_out"), VARIANTS)
def test_looking_at_every_tensor_changes_none(model, dtype, in_out):
    runner = OnnxRunner(write_onnx(model, activation_dtype=dtype, in_out=in_out), model)
    make = samples if in_out is InOut.FLOAT else integer_samples
    for seed in range(20, 25):
        inputs = make(model.graph if in_out is InOut.FLOAT else model, seed)
        seen = runner.tensors(inputs)
        assert list(seen) == list(model.graph.activations)
        for name, output in zip(model.graph.outputs, runner.run(inputs), strict=True):
            wanted = quantize(output, model.params[name]) if in_out is InOut.FLOAT else output
            np.testing.assert_array_equal(seen[name], wanted)


def test_network_runs_in_integers_and_agrees_in_both_signednesses(model):
    unsigned = OnnxRunner(write_onnx(model), model)
    signed = OnnxRunner(write_onnx(model, activation_dtype=DType.INT8), model, int8_kernels=True)
    assert signed.executed_float_ops() == {}
    assert unsigned.executed_float_ops() == {}
    assert unsigned.executed_ops()["QLinearConv"] == 3
    inputs = integer_samples(model, 30)
    for one, other in zip(unsigned.run(inputs), signed.run(inputs), strict=True):
        assert one.dtype == other.dtype == np.int8
        assert np.abs(one.astype(int) - other).max() <= 1


def test_float_ends_leave_the_inside_in_integers(model):
    runner = OnnxRunner(write_onnx(model, in_out=InOut.FLOAT), model)
    assert runner.executed_float_ops() == {}
    assert runner.executed_ops()["QuantizeLinear"] == 1
    assert runner.executed_ops()["DequantizeLinear"] == 2


def test_kernels_for_processors_whose_sums_saturate_give_the_same(model, monkeypatch):
    content, inputs = write_onnx(model), integer_samples(model, 31)
    wanted = OnnxRunner(content, model).run(inputs)
    monkeypatch.setattr(session, "_saturates", lambda: True)
    runner = OnnxRunner(content, model)
    stored = {tensor.data_type for tensor in runner.optimized().graph.initializer}
    assert onnx.TensorProto.INT8 not in stored
    for found, other in zip(runner.run(inputs), wanted, strict=True):
        assert np.abs(found.astype(int) - other).max() <= 1
    signed = write_onnx(model, activation_dtype=DType.INT8)
    assert len(OnnxRunner(signed, model).run(inputs)) == 2


def test_float_file_computes_in_float(graph):
    runner = OnnxRunner(write_onnx(graph), graph)
    assert runner.executed_float_ops() == runner.executed_ops()
    assert runner.name == "onnxruntime"


def test_parts_without_params_stay_float(model):
    kept = {name: p for name, p in model.params.items() if not name.startswith(("head", "logits", "scores"))}
    mixed = QuantizedGraph(model.graph, kept)
    content = write_onnx(mixed)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    assert check_onnx(content, mixed) == []
    runner = OnnxRunner(content, mixed)
    scores, block = runner.run(integer_samples(model, 40))
    assert (scores.dtype, block.dtype) == (np.float32, np.int8)
    assert runner.executed_float_ops() == {"DequantizeLinear": 1, "Gemm": 1, "Softmax": 1}


OTHER_ENDS = {
    "an output twice": "input x: float32[1,4]\ny = relu(x)\noutput y, y",
    "an input as an output": "input x: float32[1,4]\ny = relu(x)\noutput x, y",
    "a constant as an output": "input x: float32[1,4]\nconstant c: float32[1,4]\ny = add(x, c)\noutput c, y",
    "an unused input": "input x: float32[1,4]\ninput z: float32[2]\ny = relu(x)\noutput y",
    "auxiliary names": "input x: float32[2]\nx/real = relu(x)\nx/scale = relu(x/real)\noutput x/scale",
}


@pytest.mark.parametrize("in_out", InOut)
@pytest.mark.parametrize("text", OTHER_ENDS.values(), ids=OTHER_ENDS.keys())
def test_unusual_graphs(text, in_out):
    graph = parse_graph(text)
    model = assign_params(graph, dict.fromkeys(graph.activations, (-3.0, 3.0)), Scheme())
    content = write_onnx(model, in_out=in_out)
    assert check_onnx(content, model) == []
    inputs = samples(graph, 50)
    runner = OnnxRunner(content, model)
    found = runner.run(inputs if in_out is InOut.FLOAT else integer_samples(model, 50))
    wanted = OnnxRunner(write_onnx(graph), graph).run(inputs)
    for name, one, other in zip(graph.outputs, found, wanted, strict=True):
        step = model.params[name].step
        real = one if in_out is InOut.FLOAT else (one - model.params[name].zero_point) * step
        np.testing.assert_allclose(real, np.clip(other, -3, 3), atol=2 * step)
    assert set(runner.tensors(inputs if in_out is InOut.FLOAT else integer_samples(model, 50))) >= {"x"}


def test_every_truncation_is_one_clear_error(model):
    content = write_onnx(model)
    metadata = content.index(b"image/scale", content.index(b"image/scale") + len(content) // 2)
    found = 0
    for length in range(len(content)):
        try:
            findings = check_onnx(content[:length], model)
            # only between two entries of the metadata, which come last, is what is left an ONNX file
            assert findings
            assert length > metadata
            found += 1
        except UnsupportedError as error:
            assert "ONNX file" in str(error)
    assert found <= len(onnx.load_from_string(content).metadata_props)


def test_flipped_bytes_never_end_in_a_traceback(model):
    content = write_onnx(model)
    random = np.random.default_rng(0)
    for _ in range(1500):
        damaged = bytearray(content)
        for place in random.integers(len(content), size=2):
            damaged[place] ^= int(random.integers(1, 256))
        try:
            read_onnx(bytes(damaged))
            check_onnx(bytes(damaged), model)
        except UnsupportedError:
            pass


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"not a model", json.dumps({"a": 1}).encode()])
def test_what_is_no_file_is_one_clear_error(graph, content):
    for read in (read_onnx, lambda c: check_onnx(c, graph), lambda c: OnnxRunner(c, graph)):
        with pytest.raises(UnsupportedError, match="ONNX file"):
            read(content)


def edited(content, edit):
    proto = onnx.load_from_string(content)
    edit(proto.graph)
    return proto.SerializeToString()


def constant(graph, name):
    return next(tensor for tensor in graph.initializer if tensor.name == name)


def test_check_finds_a_changed_weight_scale_axis_and_name(model):
    content = write_onnx(model)

    def change_weight(graph):
        tensor = constant(graph, "stem.weight")
        tensor.raw_data = bytes([(tensor.raw_data[0] + 1) % 256]) + tensor.raw_data[1:]

    def change_scale(graph):
        constant(graph, "logits/scale").raw_data = np.float32(0.5).tobytes()

    def change_zero_point(graph):
        constant(graph, "block/zero_point").raw_data = b"\x01"

    def change_axis(graph):
        node = next(n for n in graph.node if n.input[0] == "stem.weight")
        node.attribute[0].i = 1

    def add_float(graph):
        graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "left.over"))

    def rename_output(graph):
        graph.output[0].name = "other"

    wanted = {
        change_weight: ["stem.weight: 1 of 216 values differ"],
        change_axis: ["stem.weight: axis is 1, not 0"],
        add_float: ["left.over: a float constant that is no scale"],
    }
    for edit, findings in wanted.items():
        assert check_onnx(edited(content, edit), model) == findings
    assert "logits: scale is [0.5]" in check_onnx(edited(content, change_scale), model)[0]
    assert "block: zero_point is [1]" in check_onnx(edited(content, change_zero_point), model)[0]
    assert "outputs are ['other', 'block']" in check_onnx(edited(content, rename_output), model)[0]


def test_check_finds_another_model_and_a_float_file(graph, model):
    assert any("is missing" in line or "not int8" in line for line in check_onnx(write_onnx(graph), model))
    other = QuantizedGraph(parse_graph(NETWORK, seed=1), model.params)
    assert any("values differ" in line for line in check_onnx(write_onnx(other), model))


def test_options_that_do_not_hold(graph, model):
    for opset in (12, 99):
        with pytest.raises(OptionError, match="opset"):
            write_onnx(graph, opset=opset)
    with pytest.raises(OptionError, match="int16"):
        write_onnx(model, activation_dtype=DType.INT16)
    unknown = replace(model, params={**model.params, "stem": replace(model.params["stem"], dtype=DType.UINT8)})
    with pytest.raises(UnsupportedError, match="stem: uint8"):
        write_onnx(unknown)


def test_more_than_a_protobuf_holds_is_one_clear_error(graph, model, monkeypatch):
    monkeypatch.setattr(writer, "LIMIT_BYTES", 1000)
    for written in (graph, model):
        with pytest.raises(UnsupportedError, match="at most 2 GiB"):
            write_onnx(written)


def test_runner_refuses_wrong_inputs_and_missing_files(model, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(OptionError, match="cannot be opened"):
        OnnxRunner(path, model)
    path.write_bytes(write_onnx(model))
    runner = OnnxRunner(path, model, threads=2)
    (good,) = integer_samples(model, 60)
    assert len(runner.run([good])) == 2
    for wrong in ([], [good, good], [good[:, :, 1:]], [good.astype(np.float32)]):
        with pytest.raises(SampleError):
            runner.run(wrong)


def test_onnxruntime_refusing_a_file_is_unsupported(model):
    def invent(graph):
        graph.node[5].op_type = "Invented"

    with pytest.raises(UnsupportedError, match="onnxruntime cannot load"):
        OnnxRunner(edited(write_onnx(model), invent), model)


def test_clamp_on_shared_scale_is_exact():
    text = """
    input x: float32[1,2,4,4]
    constant w: float32[2,2,1,1]
    r = conv2d(x, w) activation=relu6
    y = concat(x, r) axis=1
    output r, y
    """
    graph = parse_graph(text)
    model = assign_params(graph, {"x": (-9.0, 9.0), "r": (0.0, 6.0), "y": (-9.0, 9.0)}, Scheme())
    params = model.params["r"]
    limits = params.zero_point, params.zero_point + round(6 / float(params.scale))
    for dtype in (DType.INT8, DType.UINT8):
        inputs = np.random.default_rng(0).integers(-128, 128, (1, 2, 4, 4)).astype(np.int8)
        (found, _) = OnnxRunner(write_onnx(model, activation_dtype=dtype), model).run([inputs])
        assert (found.min(), found.max()) == limits
