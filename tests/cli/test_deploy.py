"""`toolchain deploy` and `toolchain stage` as a user runs them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnxruntime import InferenceSession

from toolchain.formats.onnx import read_onnx
from toolchain.formats.tflite import TfliteRunner, read_tflite


def test_deploy_writes_checked_files_and_says_where(run, workspace, deploy_options):
    outcome = run(*deploy_options)
    assert outcome.code == 0, outcome.err
    folder = workspace / "build/arm64/user_models.net"
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "model.tflite", "report.json", "report.html", "bundle"}
    assert "model.tflite" in outcome.out and "prune" in outcome.out, "paths, and why stages were left out"
    facts = json.loads((folder / "report.json").read_text())
    steps = [s for tensor in facts["layers"] for s in tensor.get("op_steps", {}).values()]
    assert steps and max(steps) <= 1
    assert not list(workspace.glob("build/**/.*")), "temporary files stay behind"


def test_the_same_command_again_gives_the_same_bytes(run, workspace, deploy_options):
    folder = workspace / "build/arm64/user_models.net"
    assert run(*deploy_options, "--store", "first").code == 0
    first = {name: (folder / name).read_bytes() for name in ("model.onnx", "model.tflite")}
    assert run(*deploy_options, "--store", "second").code == 0
    assert all((folder / name).read_bytes() == content for name, content in first.items())
    resumed = run(*deploy_options, "--store", "second")
    assert resumed.err.count("taken from the store") == 3
    assert all((folder / name).read_bytes() == content for name, content in first.items())


def test_json_is_all_that_standard_output_holds(run, deploy_options):
    outcome = run(*deploy_options, "--json")
    facts = json.loads(outcome.out)
    assert facts["runtimes"] and facts["files"]


def test_float_in_and_outputs_and_float_files(run, workspace, deploy_options):
    outcome = run(*deploy_options, "--in-out", "float", "--float-files", "--out", "mine")
    assert outcome.code == 0, outcome.err
    names = {p.name for p in (workspace / "mine").iterdir()}
    assert {"model.float.onnx", "model.float.tflite"} <= names
    tflite = read_tflite((workspace / "mine/model.tflite").read_bytes())
    assert tflite.ops["QUANTIZE"] == 1 and tflite.ops["DEQUANTIZE"] == 1
    onnx = read_onnx((workspace / "mine/model.onnx").read_bytes())
    assert onnx.tensors[onnx.inputs[0]].dtype == "float32"


def test_files_that_take_any_number_of_samples(run, workspace, deploy_options):
    outcome = run(*deploy_options, "--dynamic-batch", "--out", "mine")
    assert outcome.code == 0, outcome.err
    onnx = InferenceSession(workspace / "mine/model.onnx")
    tflite = TfliteRunner((workspace / "mine/model.tflite").read_bytes())
    (given,) = onnx.get_inputs()
    for batch in (1, 5):
        x = np.zeros((batch, *given.shape[1:]), np.uint8)
        assert len(onnx.run(None, {given.name: x})[0]) == len(tflite.run([x.astype(np.int8)])[0]) == batch


def test_a_network_that_hands_back_its_state_is_judged_along_streams(run, workspace):
    (workspace / "streaming.py").write_text(STREAMING)
    given = ("--model", "streaming:model", "--calibration", "streaming:data", "--out", "mine", "--json")
    outcome = run("deploy", *given, "--feedback", "state=1")
    assert outcome.code == 0, outcome.err
    assert "along 2 streams of 20 steps" in " ".join(json.loads(outcome.out)["notes"])
    outcome = run("deploy", *given, "--feedback", "state")
    assert outcome.code != 0 and "INPUT=OUTPUT" in outcome.err


STREAMING = """
import numpy as np, torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(6, 8), nn.Linear(8, 3)

    def forward(self, frame, state):
        new = self.cell(frame, state)
        return self.head(new), new

def model():
    torch.manual_seed(0)
    return Model().eval()

def data():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (10, 20))
    return {"frame": random.normal(size=(10, 20, 6)).astype("f"), "state": np.zeros((10, 8), "f"), "labels": labels}
"""


def test_a_device_of_fixed_shapes_refuses_them(run, deploy_options):
    outcome = run(*deploy_options, "--target", "ethos-u55", "--dynamic-batch")
    assert outcome.code == 5
    assert "cannot take a dynamic batch" in outcome.err


def test_float_files_of_a_compressed_model_are_judged_by_their_own_graph(run, workspace, deploy_options):
    (workspace / "loose.toml").write_text(
        'description = "no gates but the exact ones"\ndevice = "cortex-a76"\n[recipes]\ndefault = []\n'
    )
    rows = ("trace", "prune", "calibrate", "quantize", "export")
    recipe = "\n".join(f'[[recipe]]\nstage = "{s}"' + ("\nratio = 0.5" if s == "prune" else "") for s in rows)
    (workspace / "r.toml").write_text(recipe)
    outcome = run(*deploy_options, "--target", "loose.toml", "--recipe", "r.toml", "--float-files", "--json")
    assert outcome.code == 0, outcome.err
    errors = {r["file"]: r["relative_error"] for r in json.loads(outcome.out)["runtimes"]}
    assert errors["model.float.onnx"] < 1e-4 < errors["model.onnx"]


def test_npu_target_gets_one_fully_integer_tflite(run, workspace, deploy_options):
    outcome = run(*deploy_options, "--target", "ethos-u55")
    assert outcome.code == 0, outcome.err
    folder = workspace / "build/ethos-u55/user_models.net"
    assert not (folder / "model.onnx").exists()
    facts = read_tflite((folder / "model.tflite").read_bytes())
    assert not {"QUANTIZE", "DEQUANTIZE", "TRANSPOSE"} & set(facts.ops)
    assert not [t.name for t in facts.tensors.values() if t.dtype.is_float]


@pytest.mark.parametrize("target", ["arm64", "ethos-u55"])
def test_recipe_of_all_seven_stages(run, workspace, deploy_options, target):
    outcome = run(*deploy_options, "--target", target, "--recipe", "all", "--json")
    facts = json.loads(
        outcome.out
        if outcome.code == 0
        else (workspace / f"build/{target}/user_models.net/refused/report.json").read_text()
    )
    stages = {stage["name"] for stage in facts["stages"]}
    assert stages == {"trace", "prune", "cluster", "calibrate", "quantize", "recover", "export"}


def test_the_same_bytes_on_any_number_of_cores(run, workspace, deploy_options):
    import torch

    files = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert run(*deploy_options, "--store", f"store{threads}", "--recipe", "default").code == 0
        files.append((workspace / "build/arm64/user_models.net/model.tflite").read_bytes())
    torch.set_num_threads(1)
    assert files[0] == files[1]


def test_what_an_earlier_deployment_left_goes_when_another_takes_its_place(run, workspace, deploy_options):
    folder = workspace / "mine"
    assert run(*deploy_options, "--out", "mine").code == 0
    (folder / "refused").mkdir()
    (folder / "notes.txt").write_text("the user's own")
    assert run(*deploy_options, "--out", "mine", "--target", "ethos-u55").code == 0
    names = {path.name for path in folder.iterdir()} - {"model_vela.tflite"}  # where Vela is installed
    assert names == {"model.tflite", "report.html", "report.json", "notes.txt", "bundle"}
    assert not (folder / "bundle" / "model.onnx").exists()


def test_a_refused_deployment_leaves_the_earlier_one_alone(run, workspace, deploy_options):
    assert run(*deploy_options, "--out", "mine").code == 0
    before = (workspace / "mine/model.tflite").read_bytes()
    strict = (workspace / "strict.toml", 'description = "x"\ndevice = "cortex-a76"\n[gates]\nsqnr_db = 99.0\n')
    rows = "".join(f'[[recipes.default]]\nstage = "{s}"\n' for s in ("trace", "calibrate", "quantize", "export"))
    strict[0].write_text(strict[1] + rows)
    assert run(*deploy_options, "--out", "mine", "--target", "strict.toml").code == 7
    assert (workspace / "mine/model.tflite").read_bytes() == before


def test_npu_refuses_float(run, deploy_options):
    outcome = run(*deploy_options, "--target", "ethos-u55", "--in-out", "float")
    assert outcome.code == 5 and "float" in outcome.err


def test_a_device_too_small_says_what_is_needed_and_what_there_is(run, workspace, deploy_options):
    (workspace / "tiny.toml").write_text(
        'description = "tiny"\nsource = "made up"\nkind = "mcu"\n[compute]\nisa = "none"\n'
        "[memory]\nram_kib = 64\nflash_kib = 1\n"
    )
    rows = "".join(f'[[recipes.default]]\nstage = "{s}"\n' for s in ("trace", "calibrate", "quantize", "export"))
    (workspace / "board.toml").write_text(f'description = "b"\ndevice = "tiny.toml"\n{rows}')
    outcome = run(*deploy_options, "--target", "board.toml")
    assert outcome.code == 6 and "1,024 bytes of flash" in outcome.err


def test_metric_of_the_users(run, deploy_options):
    outcome = run(*deploy_options, "--metric", "user_models:score", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["runtimes"][0]["score"] is not None


def test_stages_one_by_one_give_the_files_of_a_deployment(run, workspace, deploy_options):
    assert run(*deploy_options).code == 0
    deployed = workspace / "build/arm64/user_models.net"
    samples = ("--calibration", "samples.npz")
    assert run("stage", "trace", "user_models:net", "--out", "s/1", *samples).code == 0
    assert run("stage", "calibrate", "s/1", "--out", "s/2", *samples).code == 0
    assert run("stage", "quantize", "s/2", "--out", "s/3", "--set", "ranges=minmax").code == 0
    outcome = run("stage", "export", "s/3", "--out", "s/4", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["bytes"]["model.tflite"] > 0
    assert (workspace / "s/4/model.tflite").stat().st_size == (deployed / "model.tflite").stat().st_size


def test_a_missed_gate_deploys_nothing_and_names_what_diverged(run, workspace, deploy_options):
    shipped = (run("targets", "--json")).out
    target = json.loads(shipped)["targets"]["arm64"]
    text = workspace / "strict.toml"
    text.write_text(
        f'description = "strict"\ndevice = "{target["device"]}"\n'
        '[[recipes.default]]\nstage = "trace"\n[[recipes.default]]\nstage = "calibrate"\n'
        '[[recipes.default]]\nstage = "quantize"\n[[recipes.default]]\nstage = "export"\n'
        "[gates]\nsqnr_db = 90.0\nop_steps = 0\n"
    )
    outcome = run(*deploy_options, "--target", "strict.toml")
    assert outcome.code == 7
    assert "SQNR" in outcome.err and "Traceback" not in outcome.err
    folder = workspace / "build/strict/user_models.net"
    assert [p.name for p in folder.iterdir()] == ["refused"]
    assert {p.name for p in (folder / "refused").iterdir()} == {"report.json", "report.html"}


def test_targets_and_schemas_print(run):
    listed = run("targets")
    assert listed.code == 0 and "arm64" in listed.out and "cortex-a53" in listed.out
    for kind in ("target", "device", "calibration"):
        assert json.loads(run("schema", kind).out)["properties"]


@pytest.mark.parametrize("command", [(), ("deploy",), ("stage",), ("targets",), ("schema",)])
def test_help_everywhere(run, command):
    outcome = run(*command, "--help")
    assert outcome.code == 0 and "Usage" in outcome.out


def test_labels_give_an_accuracy(run, workspace, deploy_options):
    random = np.random.default_rng(1)
    np.savez("labelled.npz", x=random.normal(size=(60, 1, 8, 8)).astype(np.float32), labels=random.integers(0, 10, 60))
    outcome = run(*deploy_options[:3], "--calibration", "labelled.npz", "--samples", "20", "--judge", "30", "--json")
    facts = json.loads(outcome.out or (workspace / "build/arm64/user_models.net/refused/report.json").read_text())
    assert facts["score_name"] == "top-1" and 0 <= facts["float_score"] <= 1
    scores = {r["runtime"]: r["score"] for r in facts["runtimes"]}
    assert scores["litert-reference"] is None, "a few samples say nothing about an accuracy"
    assert scores["onnxruntime"] * 30 == pytest.approx(round(scores["onnxruntime"] * 30)), "a share of 30 samples"
