"""tflite-runtime 2.14, what many devices still carry, reads our files and agrees: op versions are the lowest that hold.

It lives in a venv of its own with numpy 1.26 (`make test` sets it up); one child process runs all files.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.graph.op_cases import CASES, case_graph, case_inputs
from tests.ops.harness import quantized
from toolchain.formats.tflite import TfliteRunner, layouts, write_tflite
from toolchain.graph import Graph
from toolchain.quantization import QuantizedGraph, quantize_inputs

PYTHON = Path(__file__).parents[2] / ".venv-tflite-runtime/bin/python"
CHILD = Path(__file__).parent / "tflite_runtime_child.py"

NEWER = {}
"""Cases whose operators 2.14 does not have in this form, and why."""


KINDS = [(case, kind) for case in CASES for kind in ("float", "int8") if kind == "float" or "infinity" not in case]


@dataclass(frozen=True)
class Sent:
    model: Graph | QuantizedGraph
    content: bytes
    inputs: list[np.ndarray]


def _sent(case: str, *, integers: bool) -> Sent:
    graph = case_graph(case)
    inputs = case_inputs(graph)
    if not integers:
        return Sent(graph, write_tflite(graph), inputs)
    model = quantized(graph, *inputs)
    return Sent(model, write_tflite(model), quantize_inputs(model, inputs))


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Folder with what the child process answered, and what was sent, by file name."""
    if not PYTHON.is_file():
        pytest.skip("no .venv-tflite-runtime: `make test` sets it up")
    folder = tmp_path_factory.mktemp("tflite_runtime")
    sent = {}
    for number, (case, kind) in enumerate(KINDS):
        found = _sent(case, integers=kind == "int8")
        sent[case, kind] = (str(number), found)
        placed = layouts(found.content)
        pairs = zip(_graph(found).input_names, found.inputs, strict=True)
        (folder / f"{number}.tflite").write_bytes(found.content)
        np.savez(folder / f"{number}.npz", **{n: placed[n].to_physical(array) for n, array in pairs})
    subprocess.run([PYTHON, CHILD, folder], check=True, capture_output=True)
    return folder, sent


def _graph(sent: Sent) -> Graph:
    return sent.model.graph if isinstance(sent.model, QuantizedGraph) else sent.model


@pytest.mark.parametrize(("case", "kind"), KINDS)
def test_tflite_runtime_agrees_with_litert(answered, case, kind):
    folder, sent = answered
    name, found = sent[case, kind]
    error = folder / f"{name}.error"
    if case in NEWER:
        assert error.exists(), f"{case} runs by now: take it out of NEWER"
        pytest.skip(NEWER[case])
    assert not error.exists(), error.read_text()
    placed = layouts(found.content)
    theirs = np.load(folder / f"{name}.out.npz")
    ours = TfliteRunner(found.content).run(found.inputs)
    for output, array in zip(_graph(found).outputs, ours, strict=True):
        other = placed[output].to_logical(theirs[output])
        if array.dtype.kind == "f":
            finite = np.abs(array[np.isfinite(array)]).max(initial=1)
            np.testing.assert_allclose(other, array, rtol=0, atol=1e-5 * finite)
        else:
            assert np.abs(other.astype(np.int64) - array.astype(np.int64)).max(initial=0) <= 1
