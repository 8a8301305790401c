"""What the repository promises: shipped TOMLs load, README and examples run, the wheel holds one import name."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import toolchain
from toolchain.job import stage_options
from toolchain.knowledge import find_shipped, load_toml, shipped_names
from toolchain.profiles import load_profile
from toolchain.recipe import STAGES, make_pipeline
from toolchain.samples import CalibrationSpec, samples_from
from toolchain.targets import load_target

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", shipped_names("targets"))
def test_target_loads_and_its_recipes_can_run(name):
    target, profile = load_target(name)
    samples = samples_from([[0.0], [1.0], [2.0]], calibration_count=1, judging_count=1)
    given = stage_options(target, profile) | {"samples": samples, "example_inputs": samples.first_inputs()}
    for recipe, tables in target.recipes.items():
        pipeline = make_pipeline(tables, given, where=recipe)
        if recipe == "default":
            used = {stage.name for stage in pipeline.stages}
            assert used | set(target.left_out) == set(STAGES), "every stage is used or its absence explained"
        elif recipe == "all":
            assert {stage.name for stage in pipeline.stages} == set(STAGES)


@pytest.mark.parametrize("name", shipped_names("device_profiles"))
def test_device_profile_loads(name):
    profile = load_profile(name)
    assert profile.source and set(profile.savings) == {"int8", "structured", "unstructured", "codebook"}


@pytest.mark.parametrize("name", shipped_names("calibration"))
def test_sample_set_loads(name):
    load_toml(find_shipped("calibration", name), CalibrationSpec)


def test_every_public_name_exists():
    assert all(getattr(toolchain, name) is not None for name in toolchain.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = toolchain.nonsense


def test_importing_the_package_imports_no_torch():
    modules = "toolchain, toolchain.cli, toolchain.formats.tflite, toolchain.formats.onnx"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_readme_python_runs(block, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    my_module = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.ReLU(), torch.nn.Linear(20, 4))
    names = {"my_module": my_module, "my_data_loader": [torch.randn(10) for _ in range(60)]}
    exec(compile(block, "README.md", "exec"), names)
    if "pruned" in names:
        shapes = {name: array.shape for name, array in names["pruned"].graph.constants.items()}
        assert shapes == {"0.weight": (10, 10), "0.bias": (10,), "2.weight": (10, 10), "2.bias": (10,)}


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", README, re.DOTALL))
def test_readme_toml_loads(block, tmp_path):
    (tmp_path / "samples.toml").write_text(block)
    load_toml(tmp_path / "samples.toml", CalibrationSpec)


def test_readme_lists_the_supported_ops():
    from docs.supported_ops import rewritten

    assert rewritten(README) == README, "run: python docs/supported_ops.py"


def test_readme_names_every_variable_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    variables = set(re.findall(r"\$\((?:if \$\()?([A-Z_]+)\)", makefile)) - {
        "PYTHON",
        "VENV",
        "BIN",
        "PIP",
        "PEERS",
        "MAKEFILE_LIST",
        "CURDIR",
        "ARGS",
    }
    assert {v for v in variables if v not in README} == set()


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_example_runs(example, tmp_path):
    command = [sys.executable, str(ROOT / "examples" / example), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env=_environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_wheel_holds_one_import_name_and_the_knowledge(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"toolchain"}
    for kind in ("targets", "device_profiles", "calibration"):
        assert {Path(n).stem for n in names if n.startswith(f"toolchain/knowledge/{kind}/")} == set(shipped_names(kind))
    assert any(name.endswith(".j2") for name in names), "the report's template"
    assert "toolchain/devices/emulator/count_instructions.c" in names, "the counting plugin"


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    offenders = []
    for name in filter(None, tracked.split("\0")):
        text = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if re.search(rb"(?<![\w.])/(home|root|Users|work)/(?!someone)\w", text) and name != "tests/test_repository.py":
            offenders.append(name)
    assert offenders == []


def _environment():
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}
