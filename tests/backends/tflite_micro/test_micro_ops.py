"""Every op in int8 in tflite-micro: the profiles list those that run, and each gives the reference's integers."""

import json
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.backends.tflite_micro.micro_networks import needs_micro
from tests.graph.op_cases import CASES, case_graph, case_inputs, op_of
from tests.ops.harness import quantized
from toolchain.backends.tflite_micro import child
from toolchain.backends.tflite_micro.kernels import refusals
from toolchain.backends.tflite_micro.reference import Reference
from toolchain.formats.tflite import write_tflite
from toolchain.formats.tflite.micro import KERNELS
from toolchain.formats.tflite.parse import parse
from toolchain.graph import RECURRENT, fold
from toolchain.profiles import load_profile
from toolchain.quantization import quantize_inputs

PROFILES = ("cortex-m4", "cortex-m7", "cortex-m55")
LISTED = load_profile("cortex-m4").execution.ops
INT64 = {"gather rows of a table", "gather_elements"}
"""Cases whose indices are of int64, which no kernel takes."""
DRIFTING = {"resize bilinear odd", "resize corners"}
"""Cases that LiteRT's reference kernels are not trusted with."""
SHIFTED = {"pad with infinity"}
"""Cases without integers at all."""
CHOSEN = [c for c in CASES if op_of(c) not in RECURRENT and c not in SHIFTED]

ALL = """
import importlib.util, json, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
for folder in sorted(Path(sys.argv[2]).iterdir()):
    try:
        child.run(folder, json.loads((folder / "request.json").read_text()))
    except RuntimeError as error:
        (folder / "error").write_text(str(error))
"""


@cache
def file_of(case: str):
    """An int8 file of the case, its parts, whether it computes in float, and inputs as it stores them."""
    graph = fold(case_graph(case))
    inputs = case_inputs(graph)
    model = quantized(graph, *inputs)
    content = write_tflite(model)
    parsed = parse(content)
    given = []
    for (_, index), array in zip(parsed.inputs, quantize_inputs(model, inputs), strict=True):
        shape = parsed.tensors[index].shape
        # channels last where the file has them so
        given.append(array if array.shape == shape else np.ascontiguousarray(np.moveaxis(array, 1, -1)))
    return content, parsed, bool(model.float_nodes), given


@pytest.fixture(scope="module")
def results():
    """Outputs of every case, or what the interpreter said: one process for all, so that it takes seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        places = {case: Path(scratch, f"{at:03}") for at, case in enumerate(CHOSEN)}
        for case, folder in places.items():
            content, parsed, _, given = file_of(case)
            folder.mkdir()
            (folder / "model.tflite").write_bytes(content)
            names = [f"input_{port}.npy" for port in range(len(given))]
            for name, array in zip(names, given, strict=True):
                np.save(folder / name, array)
            asked = {"arena": 2**20, "inputs": [names], "outputs": len(parsed.outputs), "tensors": []}
            (folder / "request.json").write_text(json.dumps(asked))
        subprocess.run([sys.executable, "-c", ALL, child.__file__, scratch], check=True, capture_output=True)
        yield {
            case: (folder / "error").read_text()
            if (folder / "error").exists()
            else [np.load(folder / f"output_0_{port}.npy") for port in range(len(file_of(case)[1].outputs))]
            for case, folder in places.items()
        }


@needs_micro
@pytest.mark.parametrize("case", CHOSEN)
def test_what_the_profiles_list_runs_and_is_exact(results, case):
    content, parsed, is_float, given = file_of(case)
    found = results[case]
    runs = not isinstance(found, str)
    # known before it runs; what only reads the wrong pixels runs
    assert bool(refusals(parsed)) is (not runs or case in DRIFTING), found
    if op_of(case) in LISTED and case not in INT64:
        assert runs and not is_float
    elif runs:
        assert is_float, "int8 runs: list it"
    if runs and case not in DRIFTING:
        reference = Reference(content, parsed)
        if reference.missing is None:
            for ours, theirs in zip(found, reference.run(given), strict=True):
                # islands compute the same formula in the same order, to the last bits of float32
                assert np.allclose(ours, theirs, rtol=1e-6 if is_float else 0, atol=1e-6 if is_float else 0)
        else:
            # no reference kernel of these
            assert parsed.operators[0].name in ("ELU", "CEIL", "ROUND")


def test_the_profiles_list_the_same_ops():
    assert {load_profile(name).execution.ops for name in PROFILES} == {LISTED}
    for name in PROFILES:
        missing = set(load_profile(name).execution.instead) & set(LISTED)
        assert not missing


@needs_micro
def test_the_table_of_kernels_is_what_is_compiled_into_the_package():
    # the package names each kernel it registers
    library = Path(find_spec("tflite_micro").origin).parent / "python/tflite_micro/_runtime.so"
    content = library.read_bytes()
    absent = [name for name in KERNELS if f"Register_{name}Ev".encode() not in content]
    assert not absent
    for name in ("SIGN", "POW", "GELU", "TOPK_V2"):
        assert f"Register_{name}Ev".encode() not in content and name not in KERNELS
