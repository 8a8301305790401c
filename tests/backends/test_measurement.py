"""Back ends beside a deployment: figures, gates on them, what is published, what is said of a missing tool."""

import json

import numpy as np
import pytest

import toolchain.backends
from tests.report.deployments import small_validation
from toolchain.backends import Backend, Figure, Measured, Placement
from toolchain.backends.measurement import DeviceFacts, judge_figures
from toolchain.deployment import deploy
from toolchain.errors import DeviceError, DisagreementError, UnsupportedError
from toolchain.graph import Finding, Source
from toolchain.targets import FigureGate, Gates


def fake(**changes) -> Backend:
    def measure(written, profile):
        assert len(written.inputs) == len(written.expected) >= 1
        assert all(isinstance(array, np.ndarray) for row in written.inputs for array in row)
        figures = (Figure("cycles", 1e6, "cycles an inference"), Figure("npu_macs_share", 0.75, "MACs on the NPU"))
        beside = Placement("softmax", "head", "cpu", "no such table", "leave it out")
        return Measured(written.name, "fake", "1.0", figures, (beside,), {"model.fake": b"compiled"}, ("a note",))

    kept = {"formats": ("tflite",), "missing": lambda: None, "measure": measure}
    return Backend("emulator", "a compiler", **(kept | changes))


@pytest.fixture
def asked(monkeypatch):
    def ask(**changes):
        monkeypatch.setattr(toolchain.backends, "BACKENDS", {"fake": fake(**changes)})

    return ask


def deployed(tmp_path, **options):
    return deploy("mnist", recipe="static", out=tmp_path / "out", store=None, **options)


def test_what_a_back_end_finds_is_published_and_told(asked, tmp_path):
    asked()
    done = deployed(tmp_path)
    (row,) = done.facts["backends"]["measured"]
    assert row["file"] == "model.tflite" and row["figures"][0]["value"] == 1e6
    assert (tmp_path / "out/model.fake").read_bytes() == b"compiled"
    page = (tmp_path / "out/report.html").read_text()
    for text in ("1 M", "75 %", "no such table", "leave it out", "a note"):
        assert text in page
    # another deployment there takes away what this one published
    asked(formats=())
    deployed(tmp_path)
    assert not (tmp_path / "out/model.fake").exists()


def test_a_missing_tool_and_a_failing_one_are_notes(asked, tmp_path):
    asked(missing=lambda: "fake is not installed: pip install fake; cycles are left out")
    assert "pip install fake" in deployed(tmp_path).facts["backends"]["notes"][0]

    def fails(written, profile):
        raise DeviceError("the compiler was killed")

    asked(measure=fails)
    facts = json.loads((deployed(tmp_path).folder / "report.json").read_text())
    assert facts["backends"]["notes"] == ["emulator on model.tflite: the compiler was killed"]


def test_a_file_that_the_compiler_refuses_is_not_published(asked, tmp_path):
    def refuses(written, profile):
        raise UnsupportedError("int4 weights")

    asked(measure=refuses)
    with pytest.raises(UnsupportedError, match="int4"):
        deployed(tmp_path)
    assert not (tmp_path / "out/model.tflite").exists()


def test_what_is_known_before_compiling_refuses_the_model(asked, tmp_path):
    found = Finding("conv2d stem", "no kernel of 5x5", Source("stem", "net.py", 3), "float32", "two of 3x3")
    asked(find=lambda graph, profile: (found,))
    with pytest.raises(UnsupportedError, match="no kernel of 5x5"):
        deployed(tmp_path)


@pytest.mark.parametrize(
    ("bounds", "missed"),
    [
        ({"at_most": 1e6}, []),
        ({"at_most": 999999}, ["model.tflite by fake: cycles is 1,000,000, wanted at most 999,999"]),
        ({"at_least": 1e6}, []),
        ({"at_least": 2e6}, ["model.tflite by fake: cycles is 1,000,000, wanted at least 2,000,000"]),
    ],
)
def test_gates_bound_figures(bounds, missed):
    seen = DeviceFacts((Measured("model.tflite", "fake", "1", (Figure("cycles", 1e6, "cycles"),)),))
    found = judge_figures(small_validation(), seen, {"cycles": FigureGate(**bounds)})
    assert list(found.missed) == missed
    (verdict,) = found.verdicts
    assert verdict.measured == 1e6 and verdict.passed is not bool(missed)


def test_a_gate_on_what_nobody_measures_misses_unless_a_tool_is_not_here():
    gates = {"cycels": FigureGate(at_most=1)}
    assert "no back end" in judge_figures(small_validation(), DeviceFacts(), gates).missed[0]
    found = judge_figures(small_validation(), DeviceFacts(notes=("vela is not installed",)), gates)
    assert not found.missed and found.verdicts[0].passed is None


def test_a_figure_that_is_no_number_misses():
    seen = DeviceFacts((Measured("m", "fake", "1", (Figure("cycles", float("nan"), "cycles"),)),))
    assert judge_figures(small_validation(), seen, {"cycles": FigureGate(at_most=1e9)}).missed


def test_a_gate_bounds_something():
    with pytest.raises(ValueError, match="at_least"):
        Gates(device={"cycles": {}})


def test_a_missed_gate_publishes_nothing(asked, tmp_path, monkeypatch):
    from toolchain import targets

    asked()
    real = targets.load_target

    def strict(name):
        target, profile = real(name)
        gates = target.gates.model_copy(update={"device": {"npu_macs_share": FigureGate(at_least=1.0)}})
        return target.model_copy(update={"gates": gates}), profile

    monkeypatch.setattr("toolchain.job.load_target", strict)
    with pytest.raises(DisagreementError, match=r"npu_macs_share is 0\.75, wanted at least 1"):
        deployed(tmp_path)
    assert not (tmp_path / "out/model.tflite").exists()
    assert "MACs on the NPU" in (tmp_path / "out/refused/report.html").read_text()
