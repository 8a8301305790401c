"""Two artifacts side by side: files of both formats, saved stages, files of other writers, damaged ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from toolchain import Calibrate, Export, Quantize, Trace, compare_artifacts, samples_from
from toolchain.cli import app
from toolchain.errors import OptionError, ToolchainError


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A folder with the files of digits, float and int8, and the quantized stage."""
    from tests.zoo.networks import build

    folder = tmp_path_factory.mktemp("deployed")
    module, inputs = build("mnist", count=24)
    samples = samples_from(inputs, calibration_count=16, judging_count=8)
    quantized = Quantize()(Calibrate(samples=samples)(Trace(example_inputs=samples.first_inputs())(module)))
    (folder / "stage").mkdir()
    quantized.save(folder / "stage")
    Export(float_files=True)(quantized).write(folder)
    return folder


def test_a_file_does_not_differ_from_itself(deployed):
    found = compare_artifacts(deployed / "model.tflite", deployed / "model.tflite", 4)
    assert found.difference_counts == {} and found.only_first == found.only_second == ()
    (output,) = found.outputs
    assert (output.max_difference, output.steps) == (0.0, 0) and found.samples == 4


def test_int8_and_float_files_differ_in_type_and_a_little_in_what_they_compute(deployed):
    found = compare_artifacts(deployed / "model.float.onnx", deployed / "model.onnx", 8)
    assert found.counted_ops["Conv"][0] == found.counted_ops["Conv"][1]
    assert found.difference_counts["dtype"] == found.difference_counts["quantization"] > 5
    assert found.second.bytes < 0.4 * found.first.bytes
    (output,) = found.outputs
    assert output.sqnr_db > 10 and output.max_difference > 0 and output.steps is None


def test_both_formats_of_one_specification_have_the_same_scales(deployed):
    found = compare_artifacts(deployed / "model.onnx", deployed / "model.tflite", 8)
    assert not {"scale", "zero point", "granularity", "quantization"} & set(found.difference_counts)
    (output,) = found.outputs
    assert output.steps is not None and output.steps <= 2
    assert found.runtimes[0] == "onnxruntime"


def test_a_saved_stage_computes_what_its_file_does(deployed):
    found = compare_artifacts(deployed / "stage", deployed / "model.tflite", 4)
    assert found.first.format == "quantized" and found.runtimes[0] == "exact integers"
    assert found.outputs[0].steps <= 2


def test_a_foreign_file_is_compared_by_order_where_names_differ(deployed, tmp_path):
    def linear(prefix: str) -> bytes:
        names = [f"{prefix}{name}" for name in ("x", "w", "h", "y")]
        weight = helper.make_tensor(names[1], TensorProto.FLOAT, (4, 3), np.arange(12.0))
        nodes = [
            helper.make_node("MatMul", [names[0], names[1]], [names[2]]),
            helper.make_node("Relu", [names[2]], [names[3]]),
        ]
        ends = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
            for name, shape in ((names[0], (1, 4)), (names[3], (1, 3)))
        ]
        graph = helper.make_graph(nodes, "g", *ends, [weight])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()

    (tmp_path / "a.onnx").write_bytes(linear("a."))
    (tmp_path / "b.onnx").write_bytes(linear("b."))
    found = compare_artifacts(tmp_path / "a.onnx", tmp_path / "b.onnx", 3)
    pairs = {(t.first.name, t.second.name) for t in found.tensors}
    assert {("a.x", "b.x"), ("a.w", "b.w"), ("a.h", "b.h"), ("a.y", "b.y")} <= pairs
    assert found.outputs[0].max_difference == 0.0


def test_what_is_no_artifact_is_one_error(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(ToolchainError):
        compare_artifacts(tmp_path / "a.onnx", tmp_path / "a.onnx", 1)
    with pytest.raises(OptionError, match="cannot be read"):
        compare_artifacts(tmp_path / "none.onnx", tmp_path / "a.onnx", 1)


def test_the_command_prints_tables_and_json(deployed):
    files = [str(deployed / "model.float.tflite"), str(deployed / "model.tflite")]
    done = CliRunner().invoke(app, ["diff", *files, "--samples", "2"])
    assert done.exit_code == 0 and "outputs of" in done.stdout and "SQNR" in done.stdout
    done = CliRunner().invoke(app, ["diff", *files, "--samples", "0", "--json"])
    assert json.loads(done.stdout)["outputs"] == []
