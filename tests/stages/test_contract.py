"""What every stage and every state promises, whatever it does: one file, one parameter a stage."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.engine.module import GraphModule
from toolchain.errors import OptionError
from toolchain.graph import format_graph
from toolchain.quantization import Granularity, Scheme
from toolchain.samples import samples_from
from toolchain.stages.calibrate import Calibrate
from toolchain.stages.cluster import Cluster
from toolchain.stages.export import Export
from toolchain.stages.prune import Prune
from toolchain.stages.quantize import Quantize
from toolchain.stages.recover import Recover
from toolchain.stages.stage import Stage
from toolchain.stages.states import ExportedModel, Model, load
from toolchain.stages.trace import Trace

SHAPE = (3, 12, 12)


class Net(nn.Module):
    """A residual, a depthwise layer, a scalar, equal constants: what saving has to keep apart or together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6())
        self.mix = nn.Conv2d(16, 16, 1)
        self.spread = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, 4)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x):
        x = self.stem(x * 2.0)
        x = x + self.mix(self.spread(x))
        return self.head(x.mean((2, 3)))


def make_samples():
    values = np.random.default_rng(0).standard_normal((24, *SHAPE)).astype(np.float32)
    return samples_from(values, calibration_count=16, judging_count=8, batch_size=8)


def make_module() -> nn.Module:
    torch.manual_seed(0)
    module = Net()
    module(torch.randn(8, *SHAPE))  # statistics of something
    return module.eval()


def make_trace() -> Trace:
    return Trace(example_inputs=make_samples().first_inputs())


# name -> the stages before it, and itself, each made anew
ROWS: dict[str, Callable[[], list[Stage[Any, Any]]]] = {
    "trace": lambda: [make_trace()],
    "prune": lambda: [make_trace(), Prune(ratio=0.5)],
    "prune weights": lambda: [make_trace(), Prune(ratio=0.5, kind="weights")],
    "cluster": lambda: [make_trace(), Prune(ratio=0.25, kind="weights"), Cluster(clusters=8)],
    "calibrate": lambda: [make_trace(), Calibrate(samples=make_samples())],
    "calibrate without histograms": lambda: [make_trace(), Calibrate(samples=make_samples(), histograms=False)],
    "quantize": lambda: [make_trace(), Calibrate(samples=make_samples()), Quantize()],
    "quantize by percentile": lambda: [
        make_trace(),
        Cluster(clusters=8),
        Calibrate(samples=make_samples()),
        Quantize(ranges="percentile", percentile=99.5, scheme=Scheme(weight_granularity=Granularity.PER_TENSOR)),
    ],
    "recover in float": lambda: [
        make_trace(),
        Prune(ratio=0.5),
        Recover(samples=make_samples(), epochs=1, learning_rate=1e-3),
    ],
    "recover": lambda: [
        make_trace(),
        Prune(ratio=0.25, kind="weights"),
        Cluster(clusters=8),
        Calibrate(samples=make_samples()),
        Quantize(),
        Recover(samples=make_samples(), epochs=1, learning_rate=1e-3),
    ],
    "export in float": lambda: [make_trace(), Export()],
    "export": lambda: [make_trace(), Calibrate(samples=make_samples()), Quantize(), Export(float_files=True)],
}


def run(stages: list[Stage[Any, Any]]) -> Any:
    model: Any = make_module()
    for stage in stages:
        model = stage(model)
    return model


@pytest.fixture(scope="module", params=ROWS)
def row(request):
    """The stage, what it was given, that one's digest before, and what it made."""
    *before, stage = ROWS[request.param]()
    given = run(before)
    digest = digest_of(given)
    return stage, given, digest, stage(given)


def digest_of(model: Any) -> str:
    """Of a torch module too: its parameters, statistics and flags."""
    if isinstance(model, Model):
        return model.digest
    return str(
        [(name, tensor.tolist()) for name, tensor in model.state_dict().items()] + [m.training for m in model.modules()]
    )


def fresh_digest(model: Model) -> str:
    """Computed anew: `digest` is kept once it is known."""
    model.__dict__.pop("digest", None)
    model.__dict__.pop("_stored", None)
    return model.digest


def test_every_stage_has_a_row():
    stages = {type(make()[-1]) for make in ROWS.values()}
    assert stages == {Trace, Prune, Cluster, Calibrate, Quantize, Recover, Export}


def test_what_a_stage_is_given_stays_as_it_was(row):
    _, given, digest, _ = row
    assert digest == (fresh_digest(given) if isinstance(given, Model) else digest_of(given))


def test_a_stage_gives_what_it_says_and_its_record(row):
    stage, given, _, made = row
    state = stage.result_of(type(given)) if isinstance(given, Model) else stage.gives
    assert type(made) is state
    assert [record.stage for record in made.history][-1] == stage.name
    assert made.history[-1].options == stage.options()
    if isinstance(given, Model):
        assert made.history[:-1] == given.history
        assert format_graph(made.reference) == format_graph(given.reference)


def test_a_saved_model_loads_to_the_same(row, tmp_path):
    *_, made = row
    made.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arrays.safetensors", "model.json", "seconds.json"]
    again = load(tmp_path)
    assert type(again) is type(made)
    assert again.digest == fresh_digest(made)
    assert format_graph(again.graph) == format_graph(made.graph)
    assert format_graph(again.reference) == format_graph(made.reference)
    for name, array in made.graph.constants.items():
        assert again.graph.constants[name].shape == array.shape
        np.testing.assert_array_equal(again.graph.constants[name], array)
    again_saved = tmp_path / "again"
    again_saved.mkdir()
    again.save(again_saved)
    for name in ("arrays.safetensors", "model.json"):
        assert (again_saved / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_same_options_and_seed_give_the_same_digest(row, request):
    *_, made = row
    again = run(ROWS[request.node.callspec.params["row"]]())
    assert again.digest == made.digest


def test_a_loaded_model_goes_on_as_the_one_in_memory(row, tmp_path):
    """What resuming rests on: the next stage cannot tell the two apart, down to the bytes of the files."""
    stage, given, _, made = row
    if not isinstance(given, Model):
        pytest.skip("a torch module is not saved")
    given.save(tmp_path)
    again = stage(load(tmp_path))
    assert again.digest == made.digest
    if isinstance(made, ExportedModel):
        assert list(again.files.items()) == list(made.files.items())


def test_options_are_plain_json(row):
    stage, *_ = row
    options = stage.options()
    assert json.loads(json.dumps(options)) == options
    assert set(options) == {field.name for field in fields(stage)}


@pytest.fixture
def trainable(row):
    *_, made = row
    if isinstance(made, ExportedModel):
        # the files are written: a module can be had of them, but nothing brought back
        with pytest.raises(OptionError, match="exported files cannot take new weights"):
            made.from_module(made.to_module())
        pytest.skip("files are written")
    return made


def test_to_module_and_back_changes_nothing(trainable):
    made = trainable
    module = made.to_module()
    assert isinstance(module, nn.Module)
    assert set(module.state_dict()) == set(made.graph.constants)
    assert made.from_module(module).digest == made.digest


def test_trained_weights_come_back_and_the_rest_stays(trainable):
    made = trainable
    module = made.to_module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    again = made.from_module(module)
    assert again.digest != made.digest
    assert again.graph.nodes == made.graph.nodes
    assert format_graph(again.reference) == format_graph(made.reference)
    assert again.structure.violations(again.graph.constants) == []
    for name, array in again.graph.constants.items():
        if name in dict(module.named_parameters()) and name not in made.structure.codebooks:
            np.testing.assert_allclose(array, 1.5 * made.graph.constants[name], rtol=1e-6)


def test_a_foreign_module_is_refused(trainable):
    made = trainable
    for foreign in (make_module(), GraphModule(run([make_trace(), Prune(ratio=0.75)]).graph)):
        with pytest.raises(OptionError, match="not made by this model") as found:
            made.from_module(foreign)
        assert found.value.hint


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def scribble(path):
    path.write_bytes(bytes(reversed(path.read_bytes())))


def pickled(path):
    path.write_bytes(pickle.dumps({"state": "traced"}))


@pytest.mark.parametrize("name", ["model.json", "arrays.safetensors"])
@pytest.mark.parametrize("damage", [truncate, empty, remove, scribble, pickled])
def test_a_damaged_folder_is_one_clear_error(row, tmp_path, name, damage):
    *_, made = row
    made.save(tmp_path)
    damage(tmp_path / name)
    assert_refused(tmp_path)


def assert_refused(folder):
    with pytest.raises(OptionError) as found:
        load(folder)
    assert found.value.where == str(folder)
    assert found.value.exit_code == 2


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another version": lambda plain: plain | {"format": 99},
    "no state of that name": lambda plain: plain | {"state": "melted"},
    "no graph": lambda plain: plain | {"graph": None},
    "an op of another version": lambda plain: plain | {"graph": plain["graph"] | {"nodes": [{"op": "fft"}]}},
    "a constant that is not there": lambda plain: plain | {"graph": plain["graph"] | {"constants": ["ghost"]}},
    "shared of another shape": lambda plain: plain | {"shared": ["x"]},
    "a list": lambda plain: [plain],
    "a number": lambda plain: 3,
    "parameters of another shape": lambda plain: plain | {"params": ["x"], "statistics": ["x"], "files": 3},
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_description_that_does_not_fit_is_one_clear_error(row, tmp_path, edit):
    *_, made = row
    made.save(tmp_path)
    plain = json.loads((tmp_path / "model.json").read_text())
    if edit == "parameters of another shape" and plain["state"] == "traced":
        pytest.skip("a traced model has none")
    (tmp_path / "model.json").write_text(json.dumps(EDITS[edit](plain)))
    assert_refused(tmp_path)


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path):
    assert_refused(tmp_path / "nowhere")


def test_digests_follow_values_and_not_the_memory_they_lie_in():
    traced = run([make_trace()])
    apart = traced.graph.with_constants({name: array.copy() for name, array in traced.graph.constants.items()})
    assert type(traced)(graph=apart, reference=traced.reference, history=traced.history).digest == traced.digest


def test_equal_arrays_are_saved_once(tmp_path):
    traced = run([make_trace()])
    traced.save(tmp_path)
    held = sum(array.nbytes for array in traced.graph.constants.values())
    assert (tmp_path / "arrays.safetensors").stat().st_size < 1.5 * held + 4096


@pytest.mark.parametrize(
    "make",
    [
        lambda: Trace(example_inputs=np.zeros((1, *SHAPE), np.float32)),
        lambda: Trace()(make_module()),
        lambda: Calibrate(samples=[np.zeros(SHAPE)]),
        lambda: Quantize(percentile=40),
        lambda: Quantize(percentile="most"),
        lambda: Quantize(ranges="guess"),
        lambda: Quantize(ranges="percentile")(run(ROWS["calibrate without histograms"]())),
        lambda: Recover(samples=make_samples(), epochs=0),
        lambda: Recover(samples=make_samples(), learning_rate=-1),
        lambda: Recover(samples=make_samples(), temperature=0),
        lambda: Recover(samples=[np.zeros(SHAPE)]),
        lambda: Recover(samples=make_samples(), epochs="many"),
        lambda: Recover(samples=make_samples(), epochs=1.5),
        lambda: Recover(samples=make_samples(), learning_rate=float("nan")),
    ],
)
def test_options_that_do_not_hold_are_one_clear_error(make):
    with pytest.raises(OptionError):
        make()


def test_ranges_may_be_given_as_text():
    calibrated = run(ROWS["calibrate"]())
    text, member = (Quantize(ranges=r)(calibrated) for r in ("minmax", Quantize().ranges))
    assert text.digest == member.digest
