"""The recover stage: options, teachers and students, losses of the user's, their own loops, and what it tells."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.errors import OptionError
from toolchain.formats.onnx import OnnxRunner, write_onnx
from toolchain.formats.tflite import TfliteRunner, write_tflite
from toolchain.ladder.goal import Goal
from toolchain.quantization import QUANTIZATION_RULES, Kind, dequantize_outputs, quantize_inputs
from toolchain.recipe import make_stage
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.cluster import Cluster
from toolchain.stages.export import Export
from toolchain.stages.prune import Prune
from toolchain.stages.quantize import Quantize
from toolchain.stages.recover import Recover
from toolchain.stages.trace import Trace
from toolchain.store import Store

X = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
Y = (X[:, 0].mean((1, 2)) > 0).astype(np.int64)
USERS = """
from torch import nn
from torch.nn import functional as F

def far(outputs, targets, labels):
    return F.l1_loss(outputs[0], targets[0]) + 0 * labels.sum()

class Wide(nn.Module):
    def __init__(self, width=16, classes=2):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, classes)
    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

def large():
    import torch
    torch.manual_seed(5)
    return Wide()

def small():
    import torch
    torch.manual_seed(6)
    return Wide(4)

def of_three_classes():
    return Wide(4, 3)
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture
def users(tmp_path, monkeypatch):
    """Changes to a folder with a module of the user's, importable under a name of this test's own."""
    name = f"users_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def samples(**options):
    return samples_from((X, Y), calibration_count=48, judging_count=16, batch_size=16, **options)


def traced():
    torch.manual_seed(0)
    return Trace(example_inputs=(X[:1],))(Net().eval())


def quantized(**options):
    return Quantize(**options)(Calibrate(samples=samples())(traced()))


def recover(model, **options):
    return Recover(**{"samples": samples(), "epochs": 2, "learning_rate": 2e-3, "validation": 0, **options})(model)


def facts_of(model):
    return model.history[-1].facts


def test_a_pruned_model_comes_back_nearer_and_says_so():
    pruned = Prune(ratio=0.5)(traced())
    made = recover(pruned, epochs=6)
    facts = facts_of(made)
    assert facts["sqnr_after_db"] > facts["sqnr_before_db"]
    assert [point["epoch"] for point in facts["validation"]] == list(range(7))
    assert facts["sqnr_after_db"] == max(point["sqnr_db"] for point in facts["validation"])
    assert facts["validated_on"] == "the samples that are learned from"
    assert facts["steps"] == 18


def test_samples_are_held_back_where_there_are_enough():
    facts = facts_of(recover(quantized(), validation=0.5))
    assert facts["validated_on"] == "24 samples held back"
    assert facts["learned_from"] == 24
    assert facts["steps"] == 4


@pytest.mark.parametrize("learned_steps", [False, True])
def test_masks_codebooks_and_grids_hold_and_both_files_say_the_same(learned_steps):
    model = Cluster(clusters=8)(Prune(ratio=0.5, kind="weights")(traced()))
    model = Quantize()(Calibrate(samples=samples())(model))
    made = recover(model, learned_steps=learned_steps, epochs=4)
    assert made.structure.violations(made.graph.constants) == []
    assert made.structure.violations(made.quantized.integers) == []
    assert any((made.graph.constants[n] != a).any() for n, a in model.graph.constants.items())
    changed = [n for n, p in model.params.items() if p.scale.tobytes() != made.params[n].scale.tobytes()]
    activations = set(changed) & set(made.graph.activations)
    assert bool(activations) == learned_steps
    fixed = {n.output for n in made.graph.nodes if QUANTIZATION_RULES[n.op].kind is Kind.FIXED}
    assert not activations & fixed
    onnx, tflite = OnnxRunner(write_onnx(made.quantized), made.quantized), TfliteRunner(write_tflite(made.quantized))
    (name,) = made.graph.outputs
    for row in range(48, 56):
        given = quantize_inputs(made.quantized, (X[row : row + 1],))
        one, other = (dequantize_outputs(made.quantized, runner.run(given))[0] for runner in (onnx, tflite))
        assert np.abs(one - other).max() <= 2.01 * made.params[name].step


def test_labels_and_a_loss_of_the_users(users):
    made = recover(quantized(), loss="cross_entropy", epochs=8)
    points = facts_of(made)["validation"]
    assert points[facts_of(made)["kept_epoch"]]["accuracy"] >= points[0]["accuracy"]
    other = recover(Prune(ratio=0.8, kind="weights")(traced()), loss=f"{users}:far", epochs=8)
    assert facts_of(other)["losses"][-1] < facts_of(other)["losses"][0]
    with pytest.raises(OptionError, match="has no 'near'"):
        recover(quantized(), loss=f"{users}:near")
    with pytest.raises(OptionError, match="needs labels"):
        recover(quantized(), loss="cross_entropy", samples=samples_from(X, calibration_count=48, judging_count=16))


def test_a_teacher_and_features_by_name(users):
    teacher = f"{users}:large"
    made = recover(traced(), teacher=teacher, temperature=2.0, epochs=6, features=["head=head", "body.4=body.2"][1:])
    facts = facts_of(made)
    assert facts["sqnr_after_db"] > facts["sqnr_before_db"]
    with pytest.raises(OptionError, match="the student has no tensor 'nothing'"):
        recover(traced(), features=("nothing",))
    with pytest.raises(OptionError, match="the teacher takes and gives"):
        recover(traced(), teacher=f"{users}:of_three_classes")
    automatic = recover(Prune(ratio=0.5)(traced()), features=("auto",), epochs=1)
    assert facts_of(automatic)["losses"][0] > 0


def test_a_student_takes_the_models_place_and_learns_from_it(users):
    made = recover(traced(), student=f"{users}:small", epochs=10, learning_rate=1e-2)
    assert made.graph.constants["body.0.weight"].shape[0] == 4
    assert made.reference is not made.graph
    assert facts_of(made)["sqnr_after_db"] > facts_of(made)["sqnr_before_db"]
    with pytest.raises(OptionError, match="put recover before quantize"):
        recover(quantized(), student=f"{users}:small")


def test_what_the_users_code_says_decides_the_key(users, tmp_path, monkeypatch):
    stage = Recover(samples=samples(), loss=f"{users}:far", teacher=f"{users}:large")
    before = stage.determined_by()
    assert stage.options()["loss"] == f"{users}:far"
    assert stage.determined_by() == before
    assert replace(stage, teacher=f"{users}:small").determined_by()["models"] != before["models"]
    assert replace(stage, loss="outputs").determined_by()["loss_source"] != before["loss_source"]


def test_training_ends_once_the_goal_is_met():
    made = recover(quantized(), epochs=9, goal=Goal(sqnr_db=1.0))
    assert len(facts_of(made)["losses"]) == 1
    # what comes after a float model takes its share
    assert len(facts_of(recover(traced(), epochs=3, goal=Goal(sqnr_db=1.0)))["losses"]) == 3


def test_a_row_of_stages_with_a_store_leaves_no_checkpoint(tmp_path, monkeypatch):
    from toolchain.pipeline import Pipeline

    monkeypatch.setattr("toolchain.compress.recovery.checkpoint.EVERY_S", 0.0)
    store = Store(tmp_path)
    stage = Recover(samples=samples(), epochs=1)
    model = Pipeline((stage,)).run(quantized(), store=store)
    assert not list((tmp_path / "checkpoints").iterdir())
    assert model.digest == stage(quantized()).digest


def test_options_are_read_from_a_recipe():
    table = {"stage": "recover", "epochs": 4, "loss": "cross_entropy", "features": ["auto"], "schedule": "linear"}
    stage = make_stage(table, {"samples": samples(), "goal": Goal(sqnr_db=20.0)}, where="recipe")
    assert stage.features == ("auto",)
    assert stage.goal == Goal(sqnr_db=20.0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("optimizer", "lion"),
        ("schedule", "step"),
        ("batch_norm", "thaw"),
        ("device", "tpu"),
        ("loss", "hinge"),
        ("alpha", -1),
        ("warmup", 1),
        ("validation", 1.0),
        ("batch_size", 0),
        ("patience", 1.5),
        ("processes", 0),
        ("clip_norm", 0.0),
        ("weight_decay", float("inf")),
        ("epochs", True),
    ],
)
def test_options_that_do_not_hold_are_told(option, value):
    with pytest.raises(OptionError, match=option):
        Recover(samples=samples(), **{option: value})


# ---- the user's own loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("learned_steps", [False, True])
def test_an_ordinary_torch_loop_trains_the_module_and_brings_it_back(learned_steps):
    model = Prune(ratio=0.5, kind="weights")(traced())
    model = Quantize()(Calibrate(samples=samples())(model))
    module = model.to_module(learned_steps=learned_steps)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=16
    )
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        for pictures, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(pictures), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    made = model.from_module(module)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert made.structure.violations(made.quantized.integers) == []
    assert made.digest != model.digest
    assert Export()(made).files


# ---- several processes -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed")
def test_two_processes_share_batches_and_come_to_what_one_does(users):
    """The mean of gradients of two halves is the gradient of the batch: only sums are taken in another order."""
    model = Prune(ratio=0.5)(traced())
    options = {"loss": "cross_entropy", "weight_pull": 0.0, "optimizer": "sgd", "learning_rate": 1e-2}
    alone, shared = recover(model, **options), recover(model, **options, processes=2)
    assert facts_of(shared)["steps"] == facts_of(alone)["steps"]
    for name, array in alone.graph.constants.items():
        np.testing.assert_allclose(shared.graph.constants[name], array, rtol=1e-3, atol=1e-5)
    assert shared.history[-1].options["processes"] == 2
    assert recover(model, **options, processes=2).digest == shared.digest
    with pytest.raises(OptionError, match="cannot import this loss"):
        recover(model, loss=lambda outputs, *_: outputs[0].sum(), processes=2)
    with pytest.raises(OptionError, match="the loss is nan"):
        recover(model, loss=f"{users}:far", learning_rate=1e30, processes=2, optimizer="sgd")
