"""A file that computes something else is caught, and the tensor where it begins is named with the user's line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import Calibrate, DisagreementError, Export, Prune, Quantize, Trace, raise_missed, samples_from, validate
from toolchain.errors import OptionError
from toolchain.formats.onnx import write_onnx
from toolchain.formats.tflite import write_tflite
from toolchain.targets import Gates
from toolchain.validation.gates import judge


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Linear(4 * 36, 5)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        return self.third(x.flatten(1))


@pytest.fixture(scope="module")
def samples():
    random = np.random.default_rng(0)
    arrays, labels = random.normal(size=(50, 2, 6, 6)).astype(np.float32), random.integers(0, 5, 50)
    return samples_from((arrays, labels), calibration_count=20, judging_count=30, batch_size=10)


@pytest.fixture(scope="module")
def exported(samples):
    torch.manual_seed(0)
    traced = Trace(example_inputs=samples.first_inputs())(Three())
    return Export(float_files=True)(Quantize()(Calibrate(samples=samples)(traced)))


def spoilt(exported, constant):
    """The same model, but files whose `constant` has one output channel turned round."""
    model = exported.quantized
    array = model.graph.constants[constant].copy()
    array[0] = -array[0]
    wrong = model.with_constants({constant: array})
    return replace(exported, files={"model.onnx": write_onnx(wrong), "model.tflite": write_tflite(wrong)})


def test_honest_files_pass_every_gate(exported, samples):
    found = validate(exported, samples, Gates(sqnr_db=20, same_class=0.8, accuracy_drop=20, cosine=0.9))
    assert found.missed == () and found.samples == 30
    raise_missed(found)
    runtimes = {(r.file, r.runtime) for r in found.runtimes}
    assert runtimes == {
        ("model.onnx", "onnxruntime"),
        ("model.tflite", "litert-xnnpack"),
        ("model.tflite", "litert-reference"),
        ("model.float.onnx", "onnxruntime"),
        ("model.float.tflite", "litert-xnnpack"),
    }
    assert all(r.latency_ms > 0 for r in found.runtimes)
    assert found.score_name == "top-1" and 0 <= found.reference_score <= 1
    assert max(max(t.op_steps.values()) for t in found.tensors if t.op_steps) <= 1


@pytest.mark.parametrize(
    ("constant", "module"), [("first.weight", "first"), ("second.weight", "second"), ("third.weight", "third")]
)
def test_the_first_diverging_tensor_is_the_culprit(exported, samples, constant, module):
    found = validate(spoilt(exported, constant), samples, Gates())
    with pytest.raises(DisagreementError) as caught:
        raise_missed(found)
    (line,) = [line for line in found.missed if line.startswith("first diverging tensor")]
    assert module in line and "test_validate.py:" in line
    assert caught.value.exit_code == 7 and line in str(caught.value)


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        (Gates(sqnr_db=200), "SQNR"),
        (Gates(cosine=1.0), "cosine"),
        (Gates(float_error=1e-12), "of the range"),
    ],
)
def test_each_gate_says_what_was_wanted(exported, samples, gates, words):
    found = validate(exported, samples, gates)
    assert found.missed and all(words in line for line in found.missed)
    with pytest.raises(DisagreementError) as caught:
        raise_missed(found)
    assert "rounding costs most at" in str(caught.value) and "test_validate.py:" in str(caught.value)


def test_a_metric_of_the_users_judges_reference_and_files(exported, samples):
    seen = []

    def spread(outputs, labels):
        seen.append((outputs[0].shape, labels.shape))
        return float(outputs[0].std())

    found = validate(exported, samples, Gates(accuracy_drop=1e6), metric=spread)
    assert found.score_name == "spread" and found.reference_score > 0
    assert set(seen) == {((30, 5), (30,))}, "judged over the whole set, or not at all"


def test_what_is_not_a_number_misses_every_gate(exported, samples):
    found = validate(exported, samples, Gates(sqnr_db=1, cosine=0))
    spoilt = [replace(result, sqnr_db=float("nan"), cosine=float("nan")) for result in found.runtimes]
    judged = judge(replace(found, runtimes=tuple(spoilt)), Gates(sqnr_db=1, cosine=0))
    assert {verdict.gate for verdict in judged.verdicts if verdict.passed is False} == {"sqnr_db", "cosine"}


def test_a_runtime_that_shows_no_op_misses(exported, samples):
    found = validate(exported, samples, Gates())
    blind = tuple(replace(tensor, op_steps={}) for tensor in found.tensors)
    assert any("no op" in line for line in judge(replace(found, tensors=blind), Gates()).missed)


def test_a_metric_that_fails_is_the_users(exported, samples):
    for metric in (lambda outputs, labels: 1 / 0, lambda outputs, labels: float("nan"), lambda outputs, labels: "good"):
        with pytest.raises(OptionError, match="metric"):
            validate(exported, samples, Gates(), metric=metric)


def test_float_files_of_a_pruned_network_are_bound_by_what_pruning_cost(samples):
    torch.manual_seed(0)
    traced = Trace(example_inputs=samples.first_inputs())(nn.Sequential(nn.Flatten(), nn.Linear(72, 5)))
    bare = Export()(Prune(ratio=0.9, kind="weights")(traced))
    found = validate(bare, samples, Gates(sqnr_db=20, same_class=0.9, float_error=1e-4))
    assert all(result.is_compressed and result.same_class < 0.9 for result in found.runtimes)
    assert {line.split(": ")[1].split()[0] for line in found.missed} == {"same"}, "SQNR says nothing here"
    assert all(result.relative_error < 1e-4 for result in found.runtimes), "each computes what its own graph does"
    without = samples_from(next(samples.calibration()).inputs[0], calibration_count=5, judging_count=5)
    scoreless = Export()(Prune(ratio=0.9, kind="weights")(Trace(example_inputs=without.first_inputs())(Pictures())))
    assert any("SQNR" in line for line in validate(scoreless, without, Gates(sqnr_db=20)).missed)


class Pictures(nn.Module):
    """Its outputs are pictures: neither classes nor a score say whether they serve."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        return self.layer(x)
