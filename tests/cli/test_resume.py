"""kill -9 at any stage and the same command again: it continues, and ends with the same bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import environment

STAGES = ("trace", "prune", "cluster", "calibrate", "quantize", "recover", "export")
RECIPE = """
[[recipe]]
stage = "trace"
[[recipe]]
stage = "prune"
ratio = 0.25
[[recipe]]
stage = "cluster"
clusters = 32
[[recipe]]
stage = "calibrate"
[[recipe]]
stage = "quantize"
[[recipe]]
stage = "recover"
epochs = 2
[[recipe]]
stage = "export"
"""


@pytest.fixture
def command(workspace, deploy_options):
    (workspace / "seven.toml").write_text(RECIPE)
    (workspace / "loose.toml").write_text(
        'description = "no gates but the exact ones"\ndevice = "cortex-a76"\n[recipes]\ndefault = []\n'
    )
    chosen = [*deploy_options, "--target", "loose.toml", "--recipe", "seven.toml"]
    return [sys.executable, "-m", "toolchain.cli", *chosen]


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in ("model.onnx", "model.tflite")}


def test_killed_at_each_stage(command, workspace):
    whole = subprocess.run(
        [*command, "--store", "whole"], capture_output=True, text=True, check=False, env=environment()
    )
    assert whole.returncode == 0, whole.stderr
    folder = workspace / "build/loose/user_models.net"
    expected = outputs(folder)
    shutil.rmtree(folder)
    for stage in STAGES:
        process = subprocess.Popen(
            [*command, "--store", "killed"], stderr=subprocess.PIPE, text=True, env=environment()
        )
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"{stage} ..."):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        assert not list(folder.glob("model*")), f"killed in {stage}, yet something is deployed"
    last = subprocess.run(
        [*command, "--store", "killed"], capture_output=True, text=True, check=False, env=environment()
    )
    assert last.returncode == 0, last.stderr
    # every stage but tracing and the one the last kill hit was finished in an earlier run
    assert last.stderr.count("taken from the store") >= 5
    assert outputs(folder) == expected
    assert not list(workspace.rglob("*.unfinished"))


def test_a_damaged_entry_is_made_again(command, workspace):
    first = subprocess.run([*command, "--store", "s"], capture_output=True, text=True, check=False, env=environment())
    assert first.returncode == 0, first.stderr
    expected = outputs(workspace / "build/loose/user_models.net")
    for arrays in (workspace / "s").glob("*/arrays.safetensors"):
        content = bytearray(arrays.read_bytes())
        content[-1] ^= 1
        arrays.write_bytes(content)
    again = subprocess.run([*command, "--store", "s"], capture_output=True, text=True, check=False, env=environment())
    assert again.returncode == 0, again.stderr
    assert "damaged" in again.stderr and "taken from the store" not in again.stderr
    assert outputs(workspace / "build/loose/user_models.net") == expected
