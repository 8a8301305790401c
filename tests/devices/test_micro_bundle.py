"""Bundles of microcontrollers: goldens by the device's own interpreter, run by it, and the same as C headers."""

import json

import numpy as np
import pytest

from tests.devices.conftest import deployed
from toolchain.devices import bundle as bundles
from toolchain.devices import run_bundle
from toolchain.devices.bundle import LINEAR_STEPS, MICRO, write_bundle
from toolchain.devices.judge import judge
from toolchain.devices.reading import read_bundle, read_results
from toolchain.devices.session import host_tensors

needs_micro = pytest.mark.skipif(MICRO not in run_bundle.installed_runtimes(), reason="tflite-micro is not installed")


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    given = deployed(arena_bytes={"model.tflite": 4096})
    return write_bundle(tmp_path_factory.mktemp("micro") / "bundle", given)


@needs_micro
def test_expected_outputs_are_the_interpreters_own(micro):
    known = {artifact.file: artifact for artifact in read_bundle(micro).artifacts}
    assert known["model.tflite"].runtime == MICRO and known["model.tflite"].kernels == "reference"
    # float files and other formats are this machine's, as ever
    assert known["model.float.tflite"].runtime == "ai-edge-litert" and known["model.onnx"].runtime == "onnxruntime"


@needs_micro
def test_it_is_run_and_judged_to_the_bit_and_other_runtimes_to_a_step(micro, tmp_path, monkeypatch):
    bundle = read_bundle(micro)
    monkeypatch.setattr(run_bundle, "installed_runtimes", lambda: ["ai-edge-litert", MICRO])
    out = tmp_path / "results.json"
    assert run_bundle.main(["--bundle", str(micro), "--runs", "1", "--out", str(out)]) == 0
    verdict = judge(bundle, read_results(out, bundle))
    assert verdict.passed
    rows = {(row.file, row.runtime): row for row in verdict.judgements}
    assert rows["model.tflite", MICRO].exact and rows["model.tflite", MICRO].identical
    assert not rows["model.tflite", "ai-edge-litert"].exact
    # what it did not make is not run in it
    assert ("model.float.tflite", MICRO) not in rows


@needs_micro
def test_what_is_computed_on_the_way_is_shown(micro):
    found = host_tensors(read_bundle(micro), "model.tflite")
    assert {"c", "y"} <= found.keys() and found["c"].dtype == np.int8


def test_a_host_without_the_interpreter_looks_for_no_tensors(micro, monkeypatch):
    monkeypatch.setattr(run_bundle, "installed_runtimes", lambda: ["onnxruntime"])
    assert host_tensors(read_bundle(micro), "model.tflite") == {}


def test_bundles_of_other_devices_know_nothing_of_it(tmp_path):
    given = deployed()
    folder = write_bundle(tmp_path / "bundle", given)
    assert not (folder / "c").exists()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert MICRO not in {artifact["expected"]["runtime"] for artifact in manifest["artifacts"]}


def test_headers_are_of_the_integer_file_and_checked_as_all_files_are(micro):
    names = {str(path.relative_to(micro)) for path in (micro / "c").iterdir()}
    assert names == {"c/model.h", "c/model_golden.h"}
    assert names <= read_bundle(micro).files.keys()
    assert "#define MODEL_ARENA_BYTES 4096u" in (micro / "c/model.h").read_text()


def test_without_the_interpreter_goldens_are_litert_s_and_linear_layers_may_be_off(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles.run_bundle, "installed_runtimes", lambda: ["onnxruntime", "ai-edge-litert"])
    folder = write_bundle(tmp_path / "bundle", deployed(arena_bytes={}))
    text = (folder / "c/model_golden.h").read_text()
    assert "outputs by ai-edge-litert" in text and f"#define MODEL_GOLDEN_STEPS {LINEAR_STEPS}" in text
    assert "ARENA" not in (folder / "c/model.h").read_text()
