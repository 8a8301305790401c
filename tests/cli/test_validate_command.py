"""`toolchain validate` and `devices`: a bundle runs, is judged, and is refused where it was changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def bundle(run, workspace, deploy_options) -> Path:
    assert run(*deploy_options, "--float-files").code == 0
    return workspace / "build/arm64/user_models.net/bundle"


HERE = ("--python", sys.executable, "--runtime", "onnxruntime", "--runtime", "ai-edge-litert")


def test_what_deploy_wrote_is_confirmed_and_what_was_changed_is_refused(run, workspace, bundle):
    outcome = run("validate", str(bundle), *HERE)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(" same bits ") == 4 and "samples on" in outcome.out
    provenance = json.loads((bundle / "manifest.json").read_text())["provenance"]
    assert provenance["model"] == "user_models.net" and len(provenance["digest"]) == 64
    assert [stage["stage"] for stage in provenance["recipe"]] == ["trace", "calibrate", "quantize", "export"]
    plain = json.loads(run("validate", str(bundle), *HERE, "--json").out)
    assert plain["passed"] and len(plain["judgements"]) == 4

    command = [sys.executable, str(bundle / "run_bundle.py"), "--runtime", "onnxruntime", "--runs", "2"]
    assert subprocess.run(command, check=False, cwd=workspace, capture_output=True).returncode == 0
    results = bundle / "results.json"
    outcome = run("validate", str(bundle), str(results))
    assert outcome.code == 0 and "model.tflite: not judged" in outcome.out
    results.write_text(results.read_text().replace('"cores": ', '"cores": 1'))
    outcome = run("validate", str(bundle), str(results))
    assert outcome.code == 2 and "were changed after the device wrote them" in outcome.err

    (bundle / "model.tflite").write_bytes(b"other")
    outcome = run("validate", str(bundle), *HERE)
    assert outcome.code == 2 and "model.tflite is not the file that was put in" in outcome.err


def test_mistakes_are_one_error_each(run, workspace):
    shutil.rmtree(workspace / "nothing", ignore_errors=True)
    assert "there is no bundle" in run("validate", "nothing").err
    outcome = run("devices")
    assert outcome.code == 0 and "here" in outcome.out and "ssh" in outcome.out
    plain = json.loads(run("devices", "--json").out)
    assert set(plain["ways"]) == {"here", "emulator", "ssh", "adb"} and set(plain["targets"]) >= {"arm64", "x86-64"}
    assert plain["targets"]["cortex-m4"]["backends"] == ["tflite_micro"] and "tflite_micro" in plain["backends"]


def test_an_unknown_way_and_a_way_without_host_say_what_to_do(run, bundle):
    outcome = run("validate", str(bundle), "--way", "pigeon")
    assert outcome.code == 2 and "choose here or emulator or ssh or adb" in outcome.err
    outcome = run("validate", str(bundle), "--way", "ssh")
    assert outcome.code == 2 and "--host" in outcome.err
