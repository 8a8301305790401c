"""What tflite-micro would misread without a word, or refuse late: found in the file, before it runs."""

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from tests.backends.tflite_micro.micro_networks import (
    autoencoder,
    drawn,
    int8_model,
    needs_micro,
    written,
)
from tests.ops.harness import quantized
from toolchain.backends import BACKENDS, backend_findings
from toolchain.backends.tflite_micro.interpreter import run
from toolchain.backends.tflite_micro.kernels import graph_findings, refusals
from toolchain.backends.tflite_micro.reference import agreement
from toolchain.errors import UnsupportedError
from toolchain.formats.artifact import SparseWeights
from toolchain.formats.tflite import write_tflite
from toolchain.formats.tflite.parse import parse
from toolchain.graph import parse_graph
from toolchain.profiles import check_numbers, check_shapes, load_profile
from toolchain.quantization import NumberFormat

M4 = load_profile("cortex-m4")
MEASURE = BACKENDS["tflite_micro"].measure


def image_layers() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, groups=4))


def test_constants_outside_the_flatbuffer_are_refused():
    samples = drawn(1, 8)
    given = written(int8_model(nn.Linear(8, 4), samples[0]), *samples)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(given.content, 0))
    moved = next(buffer for buffer in model.buffers if buffer.data is not None)
    moved.offset, moved.size, moved.data = 2**10, len(moved.data), None
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(UnsupportedError, match="outside its flatbuffer"):
        MEASURE(written_as(given, bytes(builder.Output())), M4)


def written_as(given, content: bytes):
    return type(given)(given.name, content, given.model, given.inputs, given.expected)


@needs_micro
def test_int4_convolutions_run_exactly_and_unpack_into_the_arena():
    samples = drawn(1, 4, 12, 12)
    plain, packed = (
        written(int8_model(image_layers(), samples[0], numbers), *samples)
        for numbers in (NumberFormat.W8A8, NumberFormat.W4A8)
    )
    heads = []
    for given in (plain, packed):
        ran = run(given.content, given.inputs, 2**22, outputs=1)
        found = agreement("model.tflite", given.content, parse(given.content), given.inputs, ran.outputs, 2**22)
        assert found.steps == 0
        heads.append(ran.arena.head)
    assert heads[1] > heads[0]


@pytest.mark.parametrize(
    ("module", "shape", "numbers", "why"),
    [
        (autoencoder, (1, 256), NumberFormat.W4A8, "int4 weights with one scale a channel"),
        (image_layers, (1, 4, 12, 12), NumberFormat.DYNAMIC_INT8, "int8 weights beside float activations"),
        (image_layers, (1, 4, 12, 12), NumberFormat.W4, "int4 weights beside float32 activations"),
        (lambda: nn.Conv2d(8, 8, 3, groups=8), (1, 8, 9, 9), NumberFormat.DYNAMIC_INT8, "takes the first scale of"),
        (autoencoder, (1, 256), NumberFormat.W4_BLOCK, "scales of blocks"),
    ],
)
def test_weights_that_no_kernel_reads_are_named_with_a_cure(module, shape, numbers, why):
    samples = drawn(*shape, count=1)
    given = written(int8_model(module(), samples[0], numbers), *samples)
    with pytest.raises(UnsupportedError) as caught:
        MEASURE(given, M4)
    assert why in caught.value.what and 'instead: numbers = "w8a8"' in caught.value.what


@needs_micro
def test_a_dequantized_weight_with_a_scale_a_channel_is_silent_garbage():
    # why it is refused: it runs, and gives something else
    samples = drawn(1, 8, 9, 9, count=1)
    given = written(int8_model(nn.Conv2d(8, 8, 3, groups=8), samples[0], NumberFormat.DYNAMIC_INT8), *samples)
    ran = run(given.content, given.inputs, 2**22, outputs=1)
    assert np.abs(ran.outputs[0][0] - given.expected[0][0]).max() > 0.01


def test_weights_stored_without_their_zeros_are_refused():
    weight = np.zeros((64, 64), np.float32)
    weight[::8, ::3] = 1
    graph = parse_graph("input x: float32[1,64]\nconstant w: float32[64,64]\ny = linear(x, w)\noutput y", {"w": weight})
    found = refusals(parse(write_tflite(graph, sparse=SparseWeights.SMALLER)))
    assert any("without its zeros" in str(refusal) and 'sparse = "never"' in str(refusal) for refusal in found)


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m7", "cortex-m55"])
def test_the_profiles_take_static_int8_files_only(name):
    profile = load_profile(name)
    with pytest.raises(UnsupportedError, match="cannot take a dynamic batch"):
        check_shapes(True, profile, name)
    for numbers in set(NumberFormat) - {NumberFormat.W8A8, NumberFormat.W8A8_PER_TENSOR}:
        with pytest.raises(UnsupportedError, match="has no kernels for"):
            check_numbers(numbers, profile, name)


@pytest.mark.parametrize(("size", "corners", "drifts"), [((14, 12), False, False), ((10, 3), False, True),
                                                         ((13, 11), True, False), ((12, 11), True, True)])  # fmt: skip
def test_resizes_that_read_between_the_wrong_pixels_are_found_in_graph_and_file(size, corners, drifts):
    text = f"""
input x: float32[1,4,7,6]
y = resize(x) size=({size[0]},{size[1]}) mode=bilinear align_corners={corners}
output y
"""
    graph = parse_graph(text)
    found = list(graph_findings(graph))
    model = quantized(graph, *drawn(1, 4, 7, 6, count=1))
    assert bool(found) is bool(refusals(parse(write_tflite(model)))) is drifts
    assert all(finding.blocks and "2, 4 or 8 times" in finding.instead for finding in found)


@needs_micro
def test_indices_of_int64_are_found_in_the_graph():
    text = "input x: int64[1,5]\nconstant t: float32[4,8]\ny = gather(t, x) axis=0\noutput y"
    (found,) = backend_findings(parse_graph(text), M4, ("tflite",))
    assert found.blocks and "int64" in found.why and "int32" in found.instead
    assert not backend_findings(parse_graph(text.replace("int64", "int32")), M4, ("tflite",))
