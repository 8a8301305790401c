"""A bundle says what it holds, runs with numpy alone, and refuses to run when a byte is not as it was."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.devices.conftest import COUNT, deployed, samples_of
from toolchain.devices import run_bundle
from toolchain.devices.bundle import bundle_files
from toolchain.devices.judge import judge
from toolchain.devices.reading import read_bundle, read_results
from toolchain.errors import OptionError
from toolchain.formats.onnx import OnnxRunner
from toolchain.formats.tflite import TfliteRunner
from toolchain.formats.tflite.reader import layouts
from toolchain.quantization import quantize_inputs

ROOT = Path(__file__).resolve().parents[2]


def test_the_same_deployment_gives_the_same_bytes(made):
    again = bundle_files(deployed())
    assert {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()} == set(again)
    assert all((made / name).read_bytes() == content for name, content in again.items())


def test_the_manifest_tells_sizes_and_hashes(made):
    manifest = json.loads((made / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        content = (made / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (facts["bytes"], facts["sha256"])
    done = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=made, check=False)
    assert done.returncode == 0


def test_expected_outputs_are_those_of_the_runners(made):
    """By another way: logical layout, the specification's integers, runners that validation uses."""
    given = deployed()
    bundle = {artifact.file: artifact for artifact in read_bundle(made).artifacts}
    onnx, tflite = (
        OnnxRunner(given.files["model.onnx"], given.model),
        TfliteRunner(given.files["model.tflite"]),
    )
    layout = layouts(given.files["model.tflite"])["y"]
    for at, inputs in enumerate(given.samples.inputs):
        integers = quantize_inputs(given.model, inputs)
        (port,) = bundle["model.onnx"].outputs
        # the file holds uint8, 128 higher
        assert np.array_equal(port.expected[at].astype(int) - 128, onnx.run(integers)[0])
        (port,) = bundle["model.tflite"].outputs
        assert np.array_equal(layout.to_logical(port.expected[at]), tflite.run(integers)[0])
        assert np.array_equal(layout.to_logical(port.reference[at]), given.samples.references[at][0])


def test_the_runner_is_one_file_of_old_python_and_numpy():
    source = (ROOT / "toolchain/devices/run_bundle.py").read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) == {
        "numpy",
        "onnxruntime",
        "tflite_micro",
    }


def test_devices_are_imported_without_torch():
    modules = "toolchain.devices.session, toolchain.devices.bundle, toolchain.devices.commands"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_results_tell_latency_memory_and_device(made, outcome):
    plain = json.loads(outcome.read_text())
    assert plain["bundle"] == hashlib.sha256((made / "manifest.json").read_bytes()).hexdigest()
    assert plain["device"]["cores"] >= 1 and plain["device"]["python"]
    for run in plain["runs"]:
        assert run["latency_ms"]["min"] <= run["latency_ms"]["p50"] <= run["latency_ms"]["p99"]
        assert run["memory"]["peak_bytes"] >= run["memory"]["before_model_bytes"] > 0


def test_this_machine_confirms_its_own_bundle_to_the_bit(made, outcome):
    bundle = read_bundle(made)
    verdict = judge(bundle, read_results(outcome, bundle))
    assert verdict.passed and verdict.samples == COUNT and not verdict.unjudged
    assert {(j.file, j.exact, j.identical) for j in verdict.judgements} == {
        ("model.onnx", True, True),
        ("model.tflite", True, True),
        ("model.float.tflite", True, True),
    }
    assert all(j.sqnr_db is None or j.sqnr_db > 20 for j in verdict.judgements)


def test_a_byte_changed_in_any_place_is_refused(made, tmp_path):
    """The first, one in the midst and the last of every file, and a file that is cut off, gone, or one byte longer."""
    folder = tmp_path / "bundle"
    shutil.copytree(made, folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        changed = [content[:-1], content + b"\0", b""]
        for at in (0, len(content) // 2, len(content) - 1):
            changed += [content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :] for bit in (1, 128)]
        for other in changed:
            path.write_bytes(other)
            with pytest.raises(OptionError) as caught:
                read_bundle(folder)
            assert "\n" not in caught.value.what
            with pytest.raises(run_bundle.BundleError):
                run_bundle.read_manifest(folder)
        path.unlink()
        with pytest.raises(OptionError):
            read_bundle(folder)
        path.write_bytes(content)
    assert read_bundle(folder)


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "model.onnx", "golden/model.tflite/input_0.npy"])
def test_one_byte_changed_is_refused_here_and_there(made, tmp_path, name):
    folder = tmp_path / "bundle"
    shutil.copytree(made, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(OptionError):
        read_bundle(folder)
    command = [sys.executable, str(folder / "run_bundle.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == run_bundle.DAMAGED
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (folder / "results.json").exists()


def test_a_device_without_runtimes_says_which_it_misses(made, tmp_path):
    """An interpreter that sees numpy alone."""
    site = tmp_path / "site"
    site.mkdir()
    for name in ("numpy", "numpy.libs"):
        found = Path(np.__file__).parent.with_name(name)
        if found.exists():
            (site / name).symlink_to(found)
    command = [sys.executable, "-S", str(made / "run_bundle.py"), "--out", str(tmp_path / "results.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(site)})
    assert done.returncode == run_bundle.NO_RUNTIME, done.stderr
    assert "onnxruntime, ai-edge-litert, tflite-runtime, tensorflow" in done.stderr


def test_a_runtime_that_refuses_a_file_costs_one_line(made, tmp_path):
    """Damage that was put into the bundle on purpose: its sums are right, and the file is none."""
    folder = tmp_path / "bundle"
    shutil.copytree(made, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "model.onnx").write_bytes(b"nothing")
    manifest["files"]["model.onnx"] = {"bytes": 7, "sha256": hashlib.sha256(b"nothing").hexdigest()}
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    sums = run_bundle.sums_of(manifest["files"], hashlib.sha256(text.encode()).hexdigest())
    (folder / "SHA256SUMS").write_text(sums)
    command = [sys.executable, str(folder / "run_bundle.py"), "--runs", "1"]
    only = ["--runtime", "onnxruntime", "--runtime", "ai-edge-litert"]
    assert subprocess.run([*command, *only], capture_output=True, check=False).returncode == 0
    bundle = read_bundle(folder)
    verdict = judge(bundle, read_results(folder / "results.json", bundle))
    assert [j.file for j in verdict.judgements if not j.passed] == ["model.onnx"]
    assert "it does not run" in str(verdict.judgements[0].why)


def test_no_room_for_results_leaves_none(made, tmp_path):
    out = tmp_path / "missing" / "results.json"
    command = [
        sys.executable,
        str(made / "run_bundle.py"),
        "--runtime",
        "onnxruntime",
        "--runs",
        "0",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == run_bundle.CANNOT_WRITE
    assert "cannot write" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_whoever_asked_is_gone_and_the_run_ends(made, tmp_path):
    out = tmp_path / "results.json"
    command = [sys.executable, str(made / "run_bundle.py"), "--watch", "--runs", "100000", "--out", str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stderr is not None
        child.stderr.readline()
        child.stdin.close()
        assert child.wait(10) == run_bundle.ABANDONED
    assert not out.exists()


def test_samples_carry_integers_too():
    assert len(samples_of(deployed().model.graph, 2)) == 2
