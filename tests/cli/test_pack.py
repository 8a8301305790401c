"""`toolchain pack` and `toolchain unpack`."""

from __future__ import annotations

import json

import numpy as np

from toolchain.formats.tflite import write_tflite
from toolchain.graph import parse_graph

TEXT = "input x: float32[1,64]\nconstant w: float32[32,64]\ny = linear(x, w)\noutput y"


def write_model(folder) -> bytes:
    weight = np.random.default_rng(0).choice([0, 0, 0, 0.5, -1], (32, 64)).astype(np.float32)
    content = write_tflite(parse_graph(TEXT, {"w": weight}))
    (folder / "model.tflite").write_bytes(content)
    return content


def test_there_and_back(run, workspace):
    content = write_model(workspace)
    packed = run("pack", "model.tflite")
    assert packed.code == 0, packed.err
    assert "model.tflite.packed" in packed.out and "times smaller" in packed.out
    (workspace / "model.tflite").unlink()
    assert run("unpack", "model.tflite.packed").code == 0
    assert (workspace / "model.tflite").read_bytes() == content


def test_json_and_other_names(run, workspace):
    content = write_model(workspace)
    found = json.loads(run("pack", "model.tflite", "--out", "small", "--json").out)
    assert found["bytes"] == len(content) and found["packed_bytes"] == (workspace / "small").stat().st_size
    assert {tensor["name"]: tensor["values"] for tensor in found["tensors"]}["w"] == 3
    assert json.loads(run("unpack", "small", "-o", "again", "--json").out) == {"file": "again", "bytes": len(content)}
    assert (workspace / "again").read_bytes() == content


def test_damage_is_one_error_and_no_file(run, workspace):
    write_model(workspace)
    run("pack", "model.tflite")
    packed = workspace / "model.tflite.packed"
    packed.write_bytes(packed.read_bytes()[:-9])
    done = run("unpack", "model.tflite.packed", "--out", "again")
    assert done.code == 2
    assert "damaged" in done.err and "model.tflite.packed" in done.err and "Traceback" not in done.err
    assert not (workspace / "again").exists() and not list(workspace.glob(".*"))


def test_what_is_no_model(run, workspace):
    done = run("pack", "user_models.py")
    assert done.code == 2 and "neither ONNX nor TFLite" in done.err
    done = run("unpack", "user_models.py")
    assert done.code == 2 and "--out" in done.err
    done = run("unpack", "user_models.py", "--out", "x")
    assert done.code == 2 and "no packed model" in done.err
