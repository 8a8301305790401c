"""A deployment to the HTP's target: the file's form, and with the real compiler the context binaries beside it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.formats.test_qdq_only import activations_outside_qdq
from toolchain import deploy, load_target
from toolchain.errors import UnsupportedError
from toolchain.job import Request, prepare, stage_options


def test_files_for_the_htp_are_in_qdq_form_and_others_as_onnxruntime_likes_them():
    assert stage_options(*load_target("qualcomm-htp"))["onnx_qdq_only"]
    assert not stage_options(*load_target("arm64"))["onnx_qdq_only"]


def test_a_dynamic_batch_is_refused_before_anything_runs():
    with pytest.raises(UnsupportedError, match="qualcomm-htp cannot take a dynamic batch"):
        prepare(Request(model="mnist", target="qualcomm-htp", options={"dynamic_batch": True}))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxruntime_qnn") is None, reason="onnxruntime-qnn is not installed")
def test_mnist_runs_whole_on_the_npu_and_brings_a_context_for_each_soc(tmp_path):
    done = deploy("mnist", target="qualcomm-htp", recipe="static", out=tmp_path / "out", store=None)
    (row,) = done.facts["backends"]["measured"]
    figures = {figure["key"]: figure["value"] for figure in row["figures"]}
    assert figures["npu_nodes_share"] == figures["npu_macs_share"] == 1 and figures["htp_op_steps"] <= 1
    names = {path.name for path in (tmp_path / "out").glob("*.ctx*")}
    socs = ("sm8450", "sm8550", "sm8650", "sm8750", "sm8850")
    assert names == {f"model.{soc}.ctx{end}" for soc in socs for end in (".onnx", "_qnn.bin")}
    assert activations_outside_qdq((tmp_path / "out/model.onnx").read_bytes()) == []
