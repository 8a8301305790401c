"""Rows of stages: what can be made, what runs, what the store takes over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import (
    Calibrate,
    Export,
    OrderError,
    Pipeline,
    ProfileError,
    Prune,
    Quantize,
    Recover,
    Store,
    Trace,
    samples_from,
)
from toolchain.pipeline import StageRun
from toolchain.quantization import Scheme
from toolchain.recipe import STAGES, load_recipe, make_pipeline, print_recipe


@pytest.fixture(scope="module")
def samples():
    return samples_from(np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), batch_size=8)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))


def row(samples):
    return Trace(example_inputs=samples.first_inputs()), Calibrate(samples=samples), Quantize(), Export()


def test_a_wrong_order_cannot_be_made(samples):
    with pytest.raises(OrderError, match="prune takes a TracedModel, but quantize gives a QuantizedModel"):
        Pipeline((*row(samples)[:3], Prune(ratio=0.5)))
    with pytest.raises(OrderError, match="trace takes a TorchModel, but trace gives a TracedModel"):
        Pipeline((row(samples)[0], row(samples)[0]))
    with pytest.raises(OrderError, match="at least one"):
        Pipeline(())


def test_recover_gives_back_the_state_it_took(samples):
    Pipeline((row(samples)[0], Recover(samples=samples), Prune(ratio=0.5)))
    with pytest.raises(OrderError, match="export gives a ExportedModel"):
        Pipeline((*row(samples), Recover(samples=samples)))


def test_a_row_must_start_where_the_model_is(samples, module):
    traced = row(samples)[0](module)
    with pytest.raises(OrderError, match="quantize takes a CalibratedModel, not a TracedModel"):
        Pipeline((Quantize(),)).run(traced)


def test_store_takes_over_finished_stages_and_changed_options_run_anew(samples, module, tmp_path):
    runs: list[StageRun] = []
    store = Store(tmp_path)
    first = Pipeline(row(samples)).run(module, store=store)
    second = Pipeline(row(samples)).run(module, store=store, on_end=runs.append)
    assert [run.resumed for run in runs] == [False, True, True, True]
    assert first.digest == second.digest
    runs.clear()
    other = (*row(samples)[:2], Quantize(correct_bias=False), Export())
    Pipeline(other).run(module, store=store, on_end=runs.append)
    assert [run.resumed for run in runs] == [False, True, False, False]


def test_other_samples_are_another_key(samples, module, tmp_path):
    runs: list[StageRun] = []
    store = Store(tmp_path)
    Pipeline(row(samples)).run(module, store=store)
    others = samples_from(np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32), batch_size=8)
    Pipeline(row(others)).run(module, store=store, on_end=runs.append)
    assert not any(run.resumed for run in runs)


def test_leftovers_of_a_dead_process_are_removed_those_of_a_living_one_are_not(tmp_path):
    for name in (".999999999-x.unfinished", ".1-x.unfinished"):
        (tmp_path / name).mkdir()
    (tmp_path / ".999999999-y.unfinished").write_text("half a file")
    Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".1-x.unfinished"]


def test_a_recipe_prints_back_as_it_was_read(samples):
    tables = [
        {"stage": "trace"},
        {"stage": "prune", "ratio": 0.5},
        {"stage": "calibrate"},
        {"stage": "quantize", "ranges": "percentile", "percentile": 99.9},
        {"stage": "recover", "epochs": 5},
        {"stage": "export", "formats": ["tflite"]},
    ]
    given = {"samples": samples, "example_inputs": samples.first_inputs(), "scheme": Scheme()}
    made = make_pipeline(tables, given, where="recipe")
    assert print_recipe(made, given) == tables
    assert make_pipeline(print_recipe(made, given), given, where="recipe").stages[1:] == made.stages[1:]


def test_the_table_of_stages_is_keyed_by_their_own_names():
    assert all(kind.name == name for name, kind in STAGES.items()) and len(STAGES) == 7


def test_a_recipe_file_holds_recipe_tables_only(tmp_path):
    (tmp_path / "r.toml").write_text('stage = "trace"\n')
    with pytest.raises(ProfileError, match="recipe"):
        load_recipe(tmp_path / "r.toml")


def test_missing_option_names_its_key(samples):
    with pytest.raises(ProfileError, match=r"recipe\[0\].ratio: this key is missing"):
        make_pipeline([{"stage": "prune"}], {}, where="recipe")
