"""Bad input gets one clear message and an exit code, never a traceback, never a half-written file."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import environment


def refused(outcome, code, *words):
    assert outcome.code == code, (outcome.code, outcome.err)
    assert "Traceback" not in outcome.err and outcome.err.count("error:") == 1
    for word in words:
        assert word in outcome.err, f"{word!r} is not in\n{outcome.err}"


def save(name, array):
    np.savez(name, x=array)


def test_unknown_target_offers_the_nearest(run, deploy_options):
    refused(run(*deploy_options, "--target", "arm46"), 2, "arm46", "arm64")


def test_malformed_toml_names_file_and_line(run, workspace, deploy_options):
    (workspace / "bad.toml").write_text('description = "x\ndevice = 3')
    refused(run(*deploy_options, "--target", "bad.toml"), 4, "bad.toml", "line 1")


def test_unknown_key_names_file_and_key_path(run, workspace, deploy_options):
    (workspace / "bad.toml").write_text(
        'description = "x"\ndevice = "cortex-a76"\n[recipes]\ndefault = []\n[gates]\nsqnr = 3.0\n'
    )
    refused(run(*deploy_options, "--target", "bad.toml"), 4, "bad.toml", "gates.sqnr", "sqnr_db")


def test_unknown_stage_and_option_in_a_recipe(run, workspace, deploy_options):
    (workspace / "r.toml").write_text('[[recipe]]\nstage = "quantise"\n')
    refused(run(*deploy_options, "--recipe", "r.toml"), 4, "quantise", "quantize")
    (workspace / "r.toml").write_text('[[recipe]]\nstage = "trace"\n[[recipe]]\nstage = "prune"\nrato = 0.5\n')
    refused(run(*deploy_options, "--recipe", "r.toml"), 4, "rato", "ratio")
    (workspace / "r.toml").write_text('[[recipe]]\nstage = "trace"\n[[recipe]]\nstage = "prune"\nratio = "half"\n')
    refused(run(*deploy_options, "--recipe", "r.toml"), 4, "ratio", "half")


def test_a_row_that_cannot_run(run, workspace, deploy_options):
    (workspace / "r.toml").write_text(
        "\n".join(f'[[recipe]]\nstage = "{s}"' for s in ("trace", "calibrate", "quantize", "calibrate"))
    )
    refused(
        run(*deploy_options, "--recipe", "r.toml"),
        3,
        "calibrate takes a TracedModel, but quantize gives a QuantizedModel",
    )


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("mnits", 2, ["mnist"]),
        ("no_such_module:net", 2, ["no_such_module"]),
        ("user_models:nett", 2, ["nett", "net"]),
        ("user_models:nothing", 2, ["None"]),
        ("missing.pt2", 2, ["missing.pt2"]),
        ("user_models:branchy", 5, ["data-dependent", "user_models.py:"]),
        ("user_models:broken", 2, ["fc.weight", "NaN"]),
    ],
)
def test_models_that_do_not_hold(run, deploy_options, model, code, words):
    refused(run("deploy", "--model", model, *deploy_options[3:]), code, *words)


def test_all_unsupported_ops_are_listed_with_their_lines(run, deploy_options):
    outcome = run("deploy", "--model", "user_models:odd", *deploy_options[3:])
    refused(outcome, 5, "fft_rfft", "erfinv", "user_models.py:")
    assert "calibrate" not in outcome.err, "before anything slow has run"


def test_ops_the_npu_lacks_are_listed_before_calibration(run, workspace, deploy_options):
    (workspace / "user_shuffle.py").write_text(
        "from torch import nn\nclass P(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.c = nn.Conv2d(1, 4, 3)\n    def forward(self, x):\n"
        "        return nn.functional.pixel_shuffle(self.c(x), 2)\ndef net(): return P()\n"
    )
    outcome = run("deploy", "--model", "user_shuffle:net", *deploy_options[3:], "--target", "ethos-u55")
    refused(outcome, 5, "depth_to_space", "user_shuffle.py:7", "instead")
    assert "calibrate" not in outcome.err


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: save("bad.npz", np.zeros((0, 1, 8, 8), np.float32)), ["no samples", "bad"]),
        (lambda: save("bad.npz", np.zeros((60, 1, 9, 8), np.float32)), ["8"]),
        (lambda: save("bad.npz", np.full((60, 1, 8, 8), np.nan, np.float32)), ["NaN"]),
        (lambda: save("bad.npz", np.zeros((60, 1, 8, 8), np.complex64)), ["complex64"]),
        (lambda: save("bad.npz", np.zeros((9, 1, 8, 8), np.float32)), ["9"]),
    ],
)
def test_samples_that_do_not_hold(run, workspace, make, words):
    make()
    # shapes come from the model's own example inputs, so that a wrong sample cannot set them
    (workspace / "user_shaped.py").write_text(
        "import torch, user_models\ndef net(): return user_models.net(), (torch.zeros(1, 1, 8, 8),)\n"
    )
    outcome = run(
        "deploy", "--model", "user_shaped:net", "--calibration", "bad.npz", "--samples", "20", "--judge", "30"
    )
    refused(outcome, 8, *words)
    assert not list((workspace / "build").glob("arm64/*/model.*"))


def test_unwritable_output(run, workspace, deploy_options):
    (workspace / "taken").write_text("a file, not a folder")
    refused(run(*deploy_options, "--out", "taken/x"), 2, "taken")
    refused(run(*deploy_options, "--store", "taken/x"), 2, "taken")


@pytest.mark.parametrize("place", ["model.tflite", "store"])
def test_full_disk(run, workspace, deploy_options, monkeypatch, place):
    replace = Path.replace

    def full(path, target):
        if place in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    refused(run(*deploy_options), 2, "No space left", "free some space")
    assert not list(workspace.rglob("*.unfinished")) and not list(workspace.rglob("model.tflite"))


def test_usage_errors_are_one_line(run):
    refused(run("deploy", "--modle", "x"), 2, "--modle")
    refused(run("deplyo"), 2, "deplyo")
    refused(run("schema", "targte"), 2, "targte")


def test_ctrl_c_leaves_nothing_half_written(workspace, deploy_options):
    command = [sys.executable, "-m", "toolchain.cli", *deploy_options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stderr is not None
    for line in process.stderr:
        if "calibrate" in line:
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    # Python ends by the signal itself where the interruption passed through a native module that was running Python;
    # a shell sees 130 either way
    assert process.wait(60) in (130, -signal.SIGINT) and "Traceback" not in err and "interrupted" in err, err
    assert not list((workspace / "build").glob("arm64/*/model*"))
