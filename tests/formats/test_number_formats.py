"""Every number format on whole networks, in both formats: what the bytes hold, how many there are, what they give."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.zoo.networks import build
from toolchain import Calibrate, Export, Quantize, Trace, samples_from
from toolchain.diagnosis.isolation import QuantizedNodes
from toolchain.engine.run import predict
from toolchain.engine.simulate import Simulator
from toolchain.errors import OptionError, UnsupportedError
from toolchain.fidelity import Comparison
from toolchain.formats.artifact import Format
from toolchain.formats.onnx import OnnxRunner, check_onnx, read_onnx, write_onnx, write_onnx_files, writer
from toolchain.formats.onnx.reader import parse_onnx
from toolchain.formats.tflite import TfliteRunner, check_tflite, read_tflite, write_tflite
from toolchain.formats.tflite.flatbuffer import ModelBuilder
from toolchain.formats.tflite.parse import parse
from toolchain.graph import WEIGHTED, DType, Graph, parse_graph
from toolchain.job import Request, prepare
from toolchain.quantization import (
    NUMBERS,
    NumberFormat,
    QuantizedGraph,
    Reals,
    Scheme,
    assign_params,
    half,
    pack_int4,
    quantize,
    unpack_int4,
)
from toolchain.quantization.affine import bias_params
from toolchain.validation.tensors import compare_tensors

NETWORKS = ("mnist", "mobilenet_v2")
WEIGHT_BITS = {
    NumberFormat.W8A8: 8,
    NumberFormat.W8A8_PER_TENSOR: 8,
    NumberFormat.W8A16: 8,
    NumberFormat.W4A8: 4,
    NumberFormat.W4: 4,
    NumberFormat.W4_BLOCK: 4,
    NumberFormat.DYNAMIC_INT8: 8,
    NumberFormat.FLOAT16_WEIGHTS: 16,
    NumberFormat.FLOAT16: 16,
    NumberFormat.FLOAT32: 32,
}
INTEGER_WEIGHTS = (NumberFormat.DYNAMIC_INT8, NumberFormat.W4, NumberFormat.W4_BLOCK)
"""Beside float activations."""

OTHER_SUMS = 1e-10
"""Noise to signal of float32 sums in another order: 1e-5 of the signal."""
CASES = [(network, numbers, kind) for network in NETWORKS for numbers in NumberFormat for kind in Format]
# DigitNet has a max pool, for which no interpreter has a float16 kernel
UNWRITTEN = ("mnist", NumberFormat.FLOAT16, Format.TFLITE)
CASES.remove(UNWRITTEN)

LAYERS = """
input x: float32[2,12]
constant a.weight: float32[9,12]
constant a.bias: float32[9]
constant b.weight: float32[7,9]
a = linear(x, a.weight, a.bias) activation=relu
b = linear(a, b.weight)
output b
"""


@dataclass
class Prepared:
    """A calibrated network, the samples to judge with and what its float graph gives for them."""

    model: object
    samples: list[tuple[np.ndarray, ...]]
    targets: list[np.ndarray]


@cache
def prepared(network: str) -> Prepared:
    module, inputs = build(network)
    samples = samples_from(inputs, calibration_count=32, judging_count=8, batch_size=4)
    calibrated = Calibrate(samples=samples)(Trace(example_inputs=samples.first_inputs())(module))
    singles = [batch.inputs for batch in samples.with_batch_size(1).judging()]
    return Prepared(calibrated, singles, [predict(calibrated.reference, [inputs])[0] for inputs in singles])


@cache
def quantized(network: str, numbers: NumberFormat) -> QuantizedGraph:
    return Quantize(numbers=numbers)(prepared(network).model).quantized


@cache
def written(network: str, numbers: NumberFormat, kind: Format) -> bytes:
    """The file, as the export stage writes and checks it."""
    model = Quantize(numbers=numbers)(prepared(network).model)
    return Export(formats=(kind,))(model).files[f"model.{kind}"]


def read(content: bytes, kind: Format):
    return read_onnx(content) if kind is Format.ONNX else read_tflite(content)


def runners(content: bytes, kind: Format, model: Graph | QuantizedGraph):
    if kind is Format.ONNX:
        return [OnnxRunner(content, model)]
    is_half = isinstance(model, QuantizedGraph) and model.reals is Reals.FLOAT16  # XNNPACK alone computes in float16
    return [TfliteRunner(content, kernels=kernels) for kernels in (("xnnpack",) if is_half else ("xnnpack", "builtin"))]


def weights(graph: Graph) -> list[str]:
    return [node.inputs[1] for node in graph.nodes if node.op in WEIGHTED]


def run(runner, model: QuantizedGraph, inputs):
    """Float outputs for float inputs, whatever the file takes."""
    names = model.graph.input_names
    integers = [quantize(a, model.params[n]) if n in model.params else a for n, a in zip(names, inputs, strict=True)]
    (output,) = runner.run(integers)
    params = model.params.get(model.graph.outputs[0])
    return output if params is None else (output.astype(np.float64) - int(params.zero_point)) * float(params.scale)


@pytest.mark.parametrize(("network", "numbers", "kind"), CASES)
def test_bytes_hold_the_types_asked_for(network, numbers, kind):
    model, wanted = quantized(network, numbers), NUMBERS[numbers]
    facts = read(written(network, numbers, kind), kind)
    real = DType.FLOAT32 if wanted.reals is Reals.FLOAT32 else DType.FLOAT16
    for name in weights(model.graph):
        found = facts.tensors[name]
        assert found.dtype is (wanted.weight or real), name
        channels = model.graph.types[name].shape[0]
        per_channel = wanted.weight is not None and wanted.granularity == "per_channel"
        assert found.block == (model.params[name].block if name in model.params else None), name
        blocks = 1 if found.block is None else model.graph.types[name].shape[1] // found.block
        assert len(found.scale) == (channels * blocks if per_channel else 1 if wanted.weight else 0), name
        assert found.bytes == found.dtype.stored_bytes(model.graph.types[name].elements)
    activations = {facts.tensors[name].dtype for name in model.graph.activations if name in facts.tensors}
    if wanted.activation is None:
        assert activations <= {DType.FLOAT32, real}
    else:
        stored = {DType.INT8: {DType.INT8, DType.UINT8}}.get(wanted.activation, {wanted.activation})
        assert activations <= stored


@pytest.mark.parametrize(("network", "numbers", "kind"), CASES)
def test_size_follows_from_the_bits_of_a_weight(network, numbers, kind):
    model = quantized(network, numbers)
    facts = read(written(network, numbers, kind), kind)
    floats = sum(4 * model.graph.types[name].elements for name in set(weights(model.graph)))
    found = sum(facts.tensors[name].bytes for name in set(weights(model.graph)))
    assert found / floats == pytest.approx(WEIGHT_BITS[numbers] / 32, rel=1e-3)
    if network == "mnist":  # of MobileNetV2 at this width, names and scales are a good part
        whole = len(write_onnx(model.graph)) if kind is Format.ONNX else len(write_tflite(model.graph))
        assert facts.bytes / whole < WEIGHT_BITS[numbers] / 32 + 0.03


@cache
def simulated_noise(network: str, numbers: NumberFormat) -> float:
    """Noise to signal of the rounding that the format specifies."""
    model, given = quantized(network, numbers), prepared(network)
    nodes, found = QuantizedNodes(model), Comparison()
    for inputs, target in zip(given.samples, given.targets, strict=True):
        found.add([nodes.values(inputs)[model.graph.outputs[0]].numpy()], [target])
    return float(10 ** (-found.sqnr_db / 10))


def most_noise(network: str, numbers: NumberFormat) -> float:
    """Noise to signal that a file may leave: that of the format, simulated; twice that of integer activations, which
    plain kernels round twice; as much as w8a8 has where runtimes quantize float activations as they come, in ranges
    no wider; and for every tensor of float16 the noise of rounding to 11 bits, u^2 / 3 with u = 2^-11. Of so few
    samples the amplitudes add up, not the energies."""
    model = quantized(network, numbers)
    found = simulated_noise(network, numbers) * (2.0 if model.has_integer_activations else 1.0)
    as_they_come = simulated_noise(network, NumberFormat.W8A8) if numbers in INTEGER_WEIGHTS else 0.0
    half = len(model.graph.activations) * 2.0**-22 / 3 if model.reals is not Reals.FLOAT32 else 0.0
    return sum(part**0.5 for part in (found, as_they_come, half, OTHER_SUMS)) ** 2


@pytest.mark.parametrize(("network", "numbers", "kind"), CASES)
def test_results_are_those_of_the_float_model(network, numbers, kind):
    model, given = quantized(network, numbers), prepared(network)
    for runner in runners(written(network, numbers, kind), kind, model):
        comparison = Comparison()
        for inputs, target in zip(given.samples, given.targets, strict=True):
            comparison.add([run(runner, model, inputs)], [target])
        assert 10 ** (-comparison.sqnr_db / 10) < most_noise(network, numbers), runner.name


@pytest.mark.parametrize("numbers", [NumberFormat.W8A16, NumberFormat.W8A8_PER_TENSOR, NumberFormat.W4A8])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_op_is_within_a_step_of_its_exact_meaning(network, numbers):
    model = quantized(network, numbers)
    tested = [runner for kind in Format for runner in runners(written(network, numbers, kind), kind, model)]
    found = compare_tensors(model, tested, prepared(network).samples[:1])
    judged = [tensor for tensor in found if tensor.name not in model.graph.input_names and tensor.op != "reshape"]
    assert {name for tensor in judged for name in tensor.op_steps} == {runner.name for runner in tested}
    assert max(max(tensor.op_steps.values()) for tensor in judged) <= 1


@pytest.mark.parametrize("numbers", [NumberFormat.FLOAT16_WEIGHTS, NumberFormat.W4])
def test_weights_are_widened_exactly(numbers):
    """Computed in float32, a file gives what the float graph gives with the weights as they are stored."""
    model, inputs = quantized("mobilenet_v2", numbers), prepared("mobilenet_v2").samples[0]
    if numbers is NumberFormat.W4:  # linear layers quantize what they read
        model = model.extract(model.graph.nodes[:8])
    exact = Simulator(model).run(inputs)
    for name, found in zip(model.graph.outputs, OnnxRunner(write_onnx(model), model).run(inputs), strict=True):
        assert np.abs(found - exact[name]).max() <= 1e-5 * np.abs(exact[name]).max()


@pytest.mark.parametrize("numbers", list(NumberFormat))
def test_a_file_of_another_format_is_found_out(numbers):
    """Each file, checked against the model of each other format."""
    for kind, check in ((Format.ONNX, check_onnx), (Format.TFLITE, check_tflite)):
        if ("mnist", numbers, kind) == UNWRITTEN:
            continue
        content = written("mnist", numbers, kind)
        assert check(content, quantized("mnist", numbers)) == []
        for other in NumberFormat:
            if other is not numbers:
                assert check(content, quantized("mnist", other)), other
        # the float format is the float graph itself
        assert bool(check(content, quantized("mnist", numbers).graph)) is (numbers is not NumberFormat.FLOAT32)


@pytest.mark.parametrize(
    "numbers", [NumberFormat.DYNAMIC_INT8, NumberFormat.W4, NumberFormat.W4_BLOCK, NumberFormat.FLOAT16_WEIGHTS]
)
def test_a_changed_weight_or_scale_is_found(numbers):
    model = quantized("mnist", numbers)
    name = weights(model.graph)[-1]
    shifted = model.with_constants({name: np.roll(model.graph.constants[name], 1)})
    for kind, check in ((Format.ONNX, check_onnx), (Format.TFLITE, check_tflite)):
        content = written("mnist", numbers, kind)
        assert any(line.startswith(name) and "values differ" in line for line in check(content, shifted))
        if name in model.params:
            scaled = replace(model.params[name], scale=2 * model.params[name].scale)
            other = QuantizedGraph(model.graph, {**model.params, name: scaled}, {}, model.float_nodes, model.reals)
            assert any(line.startswith(f"{name}: scale") for line in check(content, other))


def test_linear_layers_take_kernels_that_multiply_integers():
    model = quantized("mnist", NumberFormat.DYNAMIC_INT8)
    executed = OnnxRunner(written("mnist", NumberFormat.DYNAMIC_INT8, Format.ONNX), model).executed_ops()
    assert executed["DynamicQuantizeMatMul"] == 2
    assert "DequantizeLinear" not in executed
    lite = written("mnist", NumberFormat.DYNAMIC_INT8, Format.TFLITE)
    assert "DEQUANTIZE" not in read_tflite(lite).ops
    assert TfliteRunner(lite).undelegated_ops() == {}


def test_wide_types_raise_the_opset():
    versions = {
        numbers: parse_onnx(written("mnist", numbers, Format.ONNX)).opset_import[0].version for numbers in NumberFormat
    }
    assert {n for n, version in versions.items() if version == 21} == {"w8a16", "w4a8", "w4", "w4_block"}
    assert set(versions.values()) == {17, 21}


@pytest.mark.parametrize("numbers", list(NumberFormat))
def test_onnx_files_pass_the_checker(numbers):
    content = written("mobilenet_v2", numbers, Format.ONNX)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)


@pytest.mark.parametrize("numbers", list(NumberFormat))
def test_the_same_model_gives_the_same_bytes(numbers):
    graph = parse_graph(LAYERS)
    model = assign_params(graph, dict.fromkeys(graph.activations, (-4.0, 4.0)), Scheme().with_numbers(numbers))
    assert write_onnx(model) == write_onnx(model)
    assert write_tflite(model) == write_tflite(model)


def test_float16_pools_are_refused_where_no_interpreter_has_them():
    with pytest.raises(UnsupportedError, match=r"max_pool2d.*float16_weights"):
        write_tflite(quantized("mnist", NumberFormat.FLOAT16))
    builder = ModelBuilder()
    x, y = (builder.add_tensor(name, (1, 4, 4, 2), DType.FLOAT16, None) for name in "xy")
    options = schema.Pool2DOptionsT(strideH=1, strideW=1, filterHeight=2, filterWidth=2)
    builder.add_operator(Builtin.MAX_POOL_2D, 1, [x], [y], options)
    content = builder.finish("model", [("x", x)], [("y", y)], {})
    for kernels in ("xnnpack", "builtin"):
        with pytest.raises(UnsupportedError, match="FLOAT16"):
            TfliteRunner(content, kernels=kernels).run([np.ones((1, 2, 4, 4), np.float16)])


@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_float16_layers_run_on_xnnpack_alone(kernels):
    with pytest.raises(UnsupportedError, match="refuses"):
        TfliteRunner(written("mobilenet_v2", NumberFormat.FLOAT16, Format.TFLITE), kernels=kernels)


def test_float16_refuses_what_it_cannot_hold():
    graph = parse_graph(LAYERS)
    big = graph.with_constants({"a.bias": np.full(9, 1e5, np.float32)})
    for reals in (Reals.FLOAT16, Reals.FLOAT16_WEIGHTS):
        with pytest.raises(UnsupportedError, match=r"a\.bias.*65504"):
            write_onnx(QuantizedGraph(big, {}, reals=reals))
        with pytest.raises(UnsupportedError, match=r"a\.bias.*65504"):
            write_tflite(QuantizedGraph(big, {}, reals=reals))


@given(arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(-65000, 65000, width=32)))
def test_half_is_nearest_and_never_zero_for_what_is_not(values):
    found = half(values)
    assert found.dtype == np.float16
    assert np.array_equal(found == 0, values == 0)
    assert np.all(np.abs(found - values) <= np.maximum(np.abs(values) * 2.0**-11, 2.0**-24))


@given(arrays.arrays(np.int8, st.integers(1, 33), elements=st.integers(-8, 7)))
def test_int4_is_packed_two_a_byte(values):
    packed = pack_int4(values)
    assert len(packed) == (len(values) + 1) // 2
    np.testing.assert_array_equal(unpack_int4(packed, len(values)), values)
    assert packed[0] & 15 == values[0] & 15


def test_int16_activations_have_no_zero_point_and_int64_biases_that_fit_int32():
    model = quantized("mobilenet_v2", NumberFormat.W8A16)
    assert all(not np.any(params.zero_point) for params in model.params.values())
    biases = [node.inputs[2] for node in model.graph.nodes if node.op in WEIGHTED]
    assert {model.params[name].dtype for name in biases} == {DType.INT64}
    assert max(np.abs(model.integers[name]).max() for name in biases) <= 2**30
    file = parse(written("mobilenet_v2", NumberFormat.W8A16, Format.TFLITE))
    assert {facts.dtype for facts in file.tensors if facts.name in biases} == {DType.INT64}
    source = model.params[model.graph.input_names[0]]
    assert bias_params(source, model.params[weights(model.graph)[0]]).dtype is DType.INT64


@pytest.mark.parametrize("numbers", [*INTEGER_WEIGHTS, NumberFormat.W8A16])
def test_a_trained_module_comes_back(numbers):
    state = Quantize(numbers=numbers)(prepared("mnist").model)
    again = state.from_module(state.to_module())
    assert again.params == state.params
    assert again.reals is state.reals


def test_saved_models_keep_their_format(tmp_path):
    from toolchain.stages.states import load

    state = Quantize(numbers=NumberFormat.FLOAT16_WEIGHTS)(prepared("mnist").model)
    state.save(tmp_path)
    found = load(tmp_path)
    assert found.reals is Reals.FLOAT16_WEIGHTS
    assert found.digest == state.digest


def test_a_format_the_device_lacks_is_refused(tmp_path):
    recipe = tmp_path / "dynamic.toml"
    stages = ("trace", "calibrate", "quantize", "export")
    tables = [f'[[recipe]]\nstage = "{stage}"\n' for stage in stages]
    recipe.write_text("".join(tables).replace('"quantize"\n', '"quantize"\nnumbers = "dynamic_int8"\n'))
    request = Request(model="mnist", target="ethos-u55", recipe=str(recipe), out=tmp_path / "out")
    with pytest.raises(UnsupportedError, match="no kernels for dynamic_int8"):
        prepare(request)
    with pytest.raises(OptionError, match="numbers"):
        Quantize(numbers="int3")


@pytest.mark.parametrize("numbers", [None, *INTEGER_WEIGHTS, NumberFormat.W8A8])
def test_constants_beyond_one_file_lie_in_a_second(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "LIMIT_BYTES", 50_000)
    model = QuantizedGraph(prepared("mnist").model.graph, {}) if numbers is None else quantized("mnist", numbers)
    files = write_onnx_files(model, "model.onnx")
    assert list(files) == ["model.onnx", "model.onnx.data"]
    content, data = files.values()
    assert len(content) < 20_000
    assert check_onnx(content, model, data) == []
    shifted = bytearray(data)
    shifted[-1] ^= 1
    assert check_onnx(content, model, bytes(shifted))
    for broken in (None, data[:-5000]):
        with pytest.raises(UnsupportedError, match="damaged"):
            check_onnx(content, model, broken)
    for name, held in files.items():
        (tmp_path / name).write_bytes(held)
    inputs = prepared("mnist").samples[0]
    monkeypatch.undo()
    whole = run(OnnxRunner(write_onnx(model), model), model, inputs)
    for runner in (OnnxRunner(tmp_path / "model.onnx", model), OnnxRunner(content, model, data=data)):
        np.testing.assert_array_equal(run(runner, model, inputs), whole)
        assert runner.executed_ops() == OnnxRunner(write_onnx(model), model).executed_ops()
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in found.get_inputs()] == list(model.graph.input_names)


def test_export_and_validation_know_the_second_file(monkeypatch):
    from toolchain.targets import Gates
    from toolchain.validation.validate import validate

    monkeypatch.setattr(writer, "LIMIT_BYTES", 50_000)
    model = Quantize()(prepared("mnist").model)
    exported = Export(formats=(Format.ONNX,))(model)
    assert set(exported.files) == {"model.onnx", "model.onnx.data"}
    _, inputs = build("mnist")
    samples = samples_from(inputs, calibration_count=32, judging_count=4, batch_size=4)
    found = validate(exported, samples, Gates(op_steps=1))
    assert found.missed == ()
    assert [result.file for result in found.runtimes] == ["model.onnx"]
