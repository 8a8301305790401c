"""A network of 100 M parameters: memory and time of writing it, and files beyond 2 GiB."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toolchain.errors import BudgetError
from toolchain.formats.onnx import OnnxRunner, check_onnx, write_onnx_files
from toolchain.formats.tflite import write_tflite
from toolchain.graph import DType, Graph, Node, Op, TensorType, Value

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "large_network.py"
LAYER_BYTES = 4 * 2048 * 2049
PEAK = "import resource, runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
PEAK += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def measured(layers: int, kind: str, numbers: str) -> tuple[float, float]:
    """Seconds of writing, and peak bytes of the process."""
    command = [sys.executable, "-c", PEAK, str(SCRIPT), str(layers), kind, numbers]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return float(lines[0].split()[1]), int(lines[1]) * UNIT


@pytest.mark.slow
@pytest.mark.parametrize("numbers", ["float32", "w8a8", "dynamic_int8"])
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_100_million_parameters_take_little_memory_and_linear_time(kind, numbers):
    layers = 24
    _, without = measured(layers, "none", numbers)
    seconds, peak = measured(layers, kind, numbers)
    assert (peak - without) / (layers * LAYER_BYTES) <= 2.5
    small, _ = measured(layers // 4, kind, numbers)
    # twice what linear would be: other processes share the machine
    assert seconds <= 2 * 4 * small + 1


@pytest.mark.slow
def test_more_than_2_gib_are_two_onnx_files_and_no_tflite_file():
    """Two tables of 1.1 GiB, the results of which are added."""
    rows, columns = 4_500, 64_000
    tables = {name: np.zeros((rows, columns), np.float32) for name in ("a.table", "b.table")}
    tables["a.table"][7] = 3.0
    tables["b.table"][7] = -1.0
    nodes = [Node(Op.LINEAR, name, ("x", f"{name}.table"), (name,), {"activation": "none"}) for name in "ab"]
    nodes.append(Node(Op.ADD, "y", ("a", "b"), ("y",), {"activation": "none"}))
    graph = Graph((Value("x", TensorType(DType.FLOAT32, (1, columns))),), ("y",), tuple(nodes), tables)
    files = write_onnx_files(graph, "model.onnx")
    assert set(files) == {"model.onnx", "model.onnx.data"}
    assert check_onnx(files["model.onnx"], graph, files["model.onnx.data"]) == []
    runner = OnnxRunner(files["model.onnx"], graph, data=files["model.onnx.data"])
    (found,) = runner.run([np.ones((1, columns), np.float32)])
    assert found[0, 7] == 2 * columns
    assert np.count_nonzero(found) == 1
    with pytest.raises(BudgetError, match="2 GiB"):
        write_tflite(graph)


def test_the_script_builds_what_it_says():
    spec = importlib.util.spec_from_file_location("large_network", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    graph = module.stack(2)
    assert sum(array.nbytes for array in graph.constants.values()) == 2 * LAYER_BYTES
    assert module.write(graph, "none") == 0
    assert module.write(graph, "onnx") > 2 * LAYER_BYTES
