"""Arm's TOSA reference model as an independent check: its integers are tflite-micro's, linear layers too."""

import pytest

from tests.backends.tflite_micro.micro_networks import (
    autoencoder,
    convolutional,
    drawn,
    int8_model,
    needs_micro,
    written,
)
from toolchain.backends import BACKENDS
from toolchain.backends.tflite_micro import measurement, tosa
from toolchain.profiles import load_profile

M4 = load_profile("cortex-m4")


@needs_micro
@pytest.mark.slow
@pytest.mark.skipif(tosa.tosa_python() is None, reason="no TOSA reference model: make .venv/tosa.stamp sets one up")
@pytest.mark.parametrize(("module", "shape"), [(convolutional, (1, 1, 32, 24)), (autoencoder, (1, 256))])
def test_integers_are_those_of_the_reference_model(module, shape):
    samples = drawn(*shape, count=4)
    found = BACKENDS["tflite_micro"].measure(written(int8_model(module(), samples[0]), *samples), M4)
    assert found.by_key["tosa_steps"] == 0


def test_without_one_the_figure_is_left_out(monkeypatch):
    monkeypatch.setattr(tosa, "find_spec", lambda _: None)
    monkeypatch.delenv("TOSA_PYTHON", raising=False)
    assert tosa.tosa_python() is None
    monkeypatch.setenv("TOSA_PYTHON", "/no/such/python")
    assert tosa.tosa_python() is None


def test_one_that_fails_is_a_line(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'loc: error: failed to legalize' >&2\nexit 1\n")
    python.chmod(0o755)
    found = tosa.run_tosa(str(python), b"", (), ())
    assert found == "the TOSA reference model does not take the file: loc: error: failed to legalize"
    assert "does not run" in str(tosa.run_tosa(str(tmp_path / "none"), b"", (), ()))


@needs_micro
def test_a_failure_there_is_noted_and_costs_nothing_else(monkeypatch):
    monkeypatch.setattr(measurement, "tosa_python", lambda: "python")
    monkeypatch.setattr(measurement, "run_tosa", lambda *_: "the TOSA reference model does not take the file: why")
    samples = drawn(1, 256)
    found = BACKENDS["tflite_micro"].measure(written(int8_model(autoencoder(), samples[0]), *samples), M4)
    assert "tosa_steps" not in found.by_key and any("does not take the file: why" in note for note in found.notes)
