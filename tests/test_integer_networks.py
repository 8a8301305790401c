"""Whole networks: nothing but integers in the files, and three runtimes that agree (issue's bar for the four
networks)."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain import Calibrate, Export, Quantize, Trace, samples_from
from toolchain.formats.onnx import OnnxRunner, read_onnx
from toolchain.formats.tflite import TfliteRunner, read_tflite
from toolchain.quantization import quantize
from toolchain.validation.tensors import compare_tensors

NETWORKS = ("mnist", "efficientnet_lite0", "mobilenet_v2", "resnet18")


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, network):
    module, inputs = network(request.param)
    samples = samples_from(inputs, calibration_count=8, judging_count=len(inputs) - 8, batch_size=4)
    calibrated = Calibrate(samples=samples)(Trace(example_inputs=samples.first_inputs())(module))
    quantized = Quantize()(calibrated)
    return (
        quantized.quantized,
        Export()(quantized).files,
        [batch.inputs for batch in samples.with_batch_size(1).judging()],
    )


@pytest.fixture(scope="module")
def network():
    from tests.zoo.networks import build

    return build


def test_tflite_holds_integers_only_and_no_transpose(exported):
    facts = read_tflite(exported[1]["model.tflite"])
    assert not {"TRANSPOSE", "QUANTIZE", "DEQUANTIZE"} & set(facts.ops)
    assert [t.name for t in facts.tensors.values() if t.dtype.is_float] == []


def test_onnx_holds_no_float_weight_and_no_clip(exported):
    facts = read_onnx(exported[1]["model.onnx"])
    assert not {"Clip", "Relu"} & set(facts.ops)
    floats = [t for t in facts.tensors.values() if t.is_constant and t.dtype.is_float]
    assert all(t.name.endswith("scale") for t in floats), [t.name for t in floats]


def test_every_op_is_within_a_step_of_its_exact_meaning(exported):
    model, files, samples = exported
    runners = [
        OnnxRunner(files["model.onnx"], model),
        TfliteRunner(files["model.tflite"], kernels="xnnpack"),
        TfliteRunner(files["model.tflite"], kernels="reference"),
    ]
    found = compare_tensors(model, runners, samples[:1])
    judged = [tensor for tensor in found if tensor.name not in model.graph.input_names]
    assert all(set(tensor.op_steps) == {runner.name for runner in runners} for tensor in judged)
    assert max(max(tensor.op_steps.values()) for tensor in judged) <= 1


def test_runtimes_agree_at_the_outputs(exported):
    model, files, samples = exported
    ours, theirs = OnnxRunner(files["model.onnx"], model), TfliteRunner(files["model.tflite"], kernels="xnnpack")
    (name,) = model.graph.input_names
    difference = []
    for (array,) in samples:
        integers = [quantize(array, model.params[name])]
        difference.append(np.abs(ours.run(integers)[0].astype(int) - theirs.run(integers)[0].astype(int)))
    assert (np.stack(difference) <= 2).mean() >= 0.99
