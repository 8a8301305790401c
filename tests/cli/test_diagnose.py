"""`toolchain diagnose` as a user runs it, and what `deploy` says of the same."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def options(deploy_options):
    return ("diagnose", *deploy_options[1:7], "--judge", "12")


def test_writes_a_page_and_facts_and_prints_the_worst_layers(run, workspace, options):
    outcome = run(*options)
    assert outcome.code == 0, outcome.err
    folder = workspace / "build/arm64/user_models.net"
    assert {path.name for path in folder.iterdir()} == {"diagnosis.html", "diagnosis.json"}
    facts = json.loads((folder / "diagnosis.json").read_text())["diagnosis"]
    assert facts["samples"] == 12 and [layer["op"] for layer in facts["layers"]] == ["input", "conv2d", "linear"]
    assert "fc (linear)" in outcome.out and "diagnosis.html" in outcome.out
    again = run(*options, "--json")
    assert json.loads(again.out)["diagnosis"] == facts
    assert again.err.count("taken from the store") == 2


def test_a_deployment_reports_it_too(run, workspace, deploy_options):
    assert run(*deploy_options).code == 0
    folder = workspace / "build/arm64/user_models.net"
    facts = json.loads((folder / "report.json").read_text())
    assert [layer["op"] for layer in facts["diagnosis"]["layers"]] == ["input", "conv2d", "linear"]
    assert "Where the error comes from" in (folder / "report.html").read_text()


def test_the_number_formats_of_a_recipe_are_diagnosed(run, options):
    four, eight = (json.loads(run(*options, "--recipe", name, "--json").out) for name in ("int4", "per_tensor"))
    assert four["diagnosis"]["sqnr_db"] < eight["diagnosis"]["sqnr_db"]
    assert {layer["cause"] for layer in four["diagnosis"]["layers"]} == {"rounding of weights"}


def test_a_float_recipe_has_nothing_to_diagnose(run, options):
    outcome = run(*options, "--recipe", "float32")
    assert outcome.code == 2 and "quantizes nothing" in outcome.err and "--recipe" in outcome.err
