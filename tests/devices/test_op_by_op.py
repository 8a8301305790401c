"""Single ops: a file falls into pieces that compute what the whole does, and a wrong op is found among right ones."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.devices.conftest import deployed, samples_of
from toolchain.devices import run_bundle
from toolchain.devices.bundle import write_bundle
from toolchain.devices.judge import judge
from toolchain.devices.op_by_op import host_runtime, op_steps
from toolchain.devices.reading import read_bundle, read_results
from toolchain.devices.session import judge_fully
from toolchain.formats.tflite import write_tflite
from toolchain.graph import Structure, parse_graph
from toolchain.quantization import Scheme, assign_params

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / ".venv-tflite-runtime/bin/python"
INTEGER_FILES = ("model.onnx", "model.tflite")


@pytest.fixture
def bundle(made):
    return read_bundle(made)


@pytest.fixture
def seen(bundle, outcome):
    return {run.file: dict(run.tensors) for run in read_results(outcome, bundle).runs}


@pytest.mark.parametrize("file", INTEGER_FILES)
def test_each_op_alone_gives_what_it_gave_in_the_whole_file(bundle, seen, file):
    found = op_steps(bundle, file, seen[file])
    assert found is not None and (found.max_steps, found.share) == (0, 0)
    assert found.compared == len(seen[file]) >= 3


@pytest.mark.parametrize("file", INTEGER_FILES)
def test_the_op_that_differs_is_found(bundle, seen, file):
    """One of the 5 values of the linear layer is off by 2."""
    values = seen[file]["y"].astype(np.int64)
    values[0, 0] += 2 if values[0, 0] < 100 else -2
    found = op_steps(bundle, file, seen[file] | {"y": values.astype(seen[file]["y"].dtype)})
    assert found is not None and (found.tensor, found.max_steps, found.share) == ("y", 2, 0.2)


def test_what_lies_behind_a_wrong_op_is_not_wrong(bundle, seen):
    """The convolution gives other values, and all that follows is computed from those."""
    other = np.clip(seen["model.tflite"]["c"].astype(int) + 3, -128, 127).astype(np.int8)
    found = op_steps(bundle, "model.tflite", {"c": other, "f": other.reshape(1, -1)})
    assert found is not None and (found.tensor, found.max_steps, found.compared) == ("c", 3, 2)


def test_what_no_op_can_have_computed_is_left_out(bundle, seen):
    """Another shape, another type, and names the file does not have."""
    tensors = seen["model.tflite"]
    odd = {name: array[:, :1] for name, array in tensors.items()} | {"other": np.zeros(3, np.int8)}
    assert op_steps(bundle, "model.tflite", odd) is None
    assert op_steps(bundle, "model.tflite", {}) is None
    assert op_steps(bundle, "model.onnx", {name: array.astype(np.int64) for name, array in odd.items()}) is None


def test_the_runtime_that_is_here_stands_in(bundle):
    manifest, _ = run_bundle.read_manifest(bundle.folder)
    artifact = manifest["artifacts"][1]
    assert host_runtime(artifact) == "ai-edge-litert"
    assert host_runtime(artifact | {"expected": {"runtime": "none"}}) == "ai-edge-litert"
    assert host_runtime(artifact | {"format": "onnx", "expected": {"runtime": "none"}}) == "onnxruntime"


def test_it_is_asked_only_where_integers_differ(bundle, outcome):
    results = read_results(outcome, bundle)
    assert all(row.op_steps is None for row in judge_fully(bundle, results).judgements)

    def never(file, tensors):
        raise AssertionError(file)

    assert judge(bundle, results, None, never).passed


RESIDUAL = """
input x: float32[1,4,8,8]
constant k: float32[4,4,3,3]
constant l: float32[4,4,1,1]
c = conv2d(x, k) padding=(1,1,1,1) activation=relu
d = conv2d(c, l)
s = add(c, d)
e = conv2d(s, l) activation=relu6
output e
"""


def test_an_older_runtime_is_within_a_step_an_op(tmp_path):
    """tflite-runtime 2.14 adds in place, over what the convolution before made: that tensor is not recorded."""
    if not OLD.exists():
        pytest.skip("no .venv-tflite-runtime: `make test` sets it up")
    random = np.random.default_rng(0)
    shapes = {"k": (4, 4, 3, 3), "l": (4, 4, 1, 1)}
    graph = parse_graph(RESIDUAL, {n: random.standard_normal(s).astype(np.float32) / 3 for n, s in shapes.items()})
    model = assign_params(graph, dict.fromkeys(graph.activations, (-4.0, 4.0)), Scheme(), Structure())
    samples = samples_of(graph, shape=(1, 4, 8, 8))
    given = deployed(files={"model.tflite": write_tflite(model)}, model=model, samples=samples)
    bundle = read_bundle(write_bundle(tmp_path / "bundle", given))
    out = tmp_path / "results.json"
    command = [str(OLD), str(bundle.folder / "run_bundle.py"), "--tensors", "--runs", "0", "--out", str(out)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    recorded = {entry["name"] for entry in json.loads(out.read_text())["runs"][0]["tensors"]}
    assert {"c", "s", "e"} <= recorded | {"d"} and "d" not in recorded
    found = op_steps(bundle, "model.tflite", read_results(out, bundle).runs[0].tensors)
    assert found is not None and found.max_steps <= 1 and found.compared == 2
