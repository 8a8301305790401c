"""A small int8 network and its bundle: convolution, pool, linear; and the float version beside it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from toolchain.devices.bundle import Deployed, Tolerance, write_bundle
from toolchain.devices.golden import Samples
from toolchain.formats.onnx import OnnxRunner, write_onnx
from toolchain.formats.tflite import write_tflite
from toolchain.graph import Structure, parse_graph
from toolchain.quantization import QuantizedGraph, Scheme, assign_params

TEXT = """
input x: float32[1,2,8,8]
constant k: float32[6,2,3,3]
constant kb: float32[6]
constant w: float32[5,384]
constant b: float32[5]
c = conv2d(x, k, kb) padding=(1,1,1,1) activation=relu
f = reshape(c) shape=(1,384)
y = linear(f, w, b)
output y
"""
COUNT = 3


def float_network():
    random = np.random.default_rng(0)
    shapes = {"k": (6, 2, 3, 3), "kb": 6, "w": (5, 384), "b": 5}
    values = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return parse_graph(TEXT, values | {"w": values["w"] / 16})


def samples_of(graph, count: int = COUNT, shape: tuple[int, ...] = (1, 2, 8, 8)) -> Samples:
    random = np.random.default_rng(1)
    inputs = tuple((random.standard_normal(shape).astype(np.float32),) for _ in range(count))
    runner = OnnxRunner(write_onnx(graph), graph)
    return Samples(inputs, tuple(tuple(runner.run(row)) for row in inputs))


def deployed(**changes) -> Deployed:
    graph = float_network()
    model = assign_params(graph, dict.fromkeys(graph.activations, (-16.0, 16.0)), Scheme(), Structure())
    files = {
        "model.onnx": write_onnx(model),
        "model.tflite": write_tflite(model),
        "model.float.tflite": write_tflite(graph),
    }
    given = {"files": files, "model": model, "samples": samples_of(graph)}
    return Deployed(**(given | {"tolerance": Tolerance(2, 0.99, 1e-4), "provenance": {"model": "small"}} | changes))


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A bundle, not to be changed."""
    return write_bundle(tmp_path_factory.mktemp("made") / "bundle", deployed())


@pytest.fixture(scope="session")
def outcome(made, tmp_path_factory) -> Path:
    """What this interpreter's runtimes give of it, with what is computed on the way."""
    out = tmp_path_factory.mktemp("outcome") / "results.json"
    only = ["--runtime", "onnxruntime", "--runtime", "ai-edge-litert"]
    command = [sys.executable, str(made / "run_bundle.py"), "--runs", "3", "--tensors", "--out", str(out), *only]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def float_model() -> QuantizedGraph:
    return QuantizedGraph(float_network(), {})


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where this machine makes its temporary folders."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
