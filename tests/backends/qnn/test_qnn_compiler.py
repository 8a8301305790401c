"""QNN is asked in a process of its own, and whatever goes wrong there is one error; what it compiled for is checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolchain.backends.qnn import QNN, compiler, htp_session
from toolchain.backends.qnn.compiler import compile_file
from toolchain.errors import DeviceError, ProfileError, UnsupportedError
from toolchain.profiles import load_profile
from toolchain.profiles.backends import HTP_SOCS, Qnn

INPUTS = {"a/b?*": [np.zeros((1, 2), np.uint8)] * 3}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(htp_session, "__file__", str(Path(__file__).with_name("htp_stand_in.py")))


def test_outputs_trace_and_context_files_come_back():
    found = compile_file(b"works", "SM8650", INPUTS, context="model.sm8650.ctx.onnx")
    assert found.soc == "SM8650" and found.trace["unsupported_nodes"] == []
    np.testing.assert_array_equal(found.outputs["a/b?*/next"], np.ones((3, 1, 2), np.uint8))
    assert found.files == {"model.sm8650.ctx.onnx": b"onnx", "model.sm8650.ctx_qnn.bin": b"binary"}


def test_without_a_context_there_are_no_files():
    assert compile_file(b"works", "SM8650", INPUTS).files == {}
    assert compile_file(b"without context", "SM8650", INPUTS, context="m.ctx.onnx").files == {}


@pytest.mark.parametrize("soc", HTP_SOCS)
def test_a_soc_is_compiled_for_by_its_number_and_its_architecture(soc):
    (target,) = compile_file(b"works", soc, INPUTS).trace["soc_traces"]
    found = target["compilation_target"]
    assert found == {"htp_arch": f"V{HTP_SOCS[soc].htp_arch}", "soc_model": HTP_SOCS[soc].model}


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        ("other arch", "QNN compiled for architecture none of SoC 57, not for SM8650"),
        ("falls back", "QNN compiled nothing: QNN SetupBackend failed: Invalid config"),
        ("half a trace", "QNN's trace of ops cannot be read"),
        ("dies", "QNN died of signal 6 over SM8650"),
        ("raises", "QNN did not run: RuntimeError: QNNExecutionProvider finds no device"),
    ],
)
def test_what_goes_wrong_there_is_one_device_error(behaviour, complaint):
    with pytest.raises(DeviceError) as caught:
        compile_file(behaviour.encode(), "SM8650", INPUTS)
    assert str(caught.value).startswith(complaint)


def test_one_that_does_not_answer_is_ended():
    with pytest.raises(DeviceError, match=r"for SM8650 and run it within 0\.5 s"):
        compile_file(b"sleeps", "SM8650", INPUTS, seconds=0.5)


def test_a_file_that_is_refused_names_the_soc_and_what_to_do():
    with pytest.raises(UnsupportedError) as caught:
        compile_file(b"refuses", "SM8450", INPUTS)
    assert caught.value.what.startswith("QNN does not compile the file for SM8450: Failed to finalize QNN graph")
    assert "leave SM8450 out" in str(caught.value.hint)


def test_a_missing_provider_is_a_line_with_the_command(monkeypatch):
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    line = QNN.missing()
    assert line is not None and "\n" not in line
    assert "onnxruntime-qnn is not installed (pip install 'edge-toolchain[htp]')" in line


def test_which_files_of_which_devices_it_serves():
    htp, other = load_profile("qualcomm-htp"), load_profile("cortex-a76")
    assert QNN.serves(htp, "model.onnx")
    assert not any(QNN.serves(htp, name) for name in ("model.tflite", "model.float.onnx"))
    assert not QNN.serves(other, "model.onnx")


def test_only_known_socs_can_be_asked_for(tmp_path):
    path = tmp_path / "phone.toml"
    path.write_text('description = "d"\nsource = "s"\nkind = "npu"\n[compute]\nisa = "x"\n[qnn]\nsocs = ["SM9999"]\n')
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert "qnn.socs" in str(caught.value) and "SM8650" in str(caught.value)
    # the profile's own list is the table's
    assert set(HTP_SOCS) == set(Qnn(socs=tuple(HTP_SOCS)).socs)  # type: ignore[arg-type]
