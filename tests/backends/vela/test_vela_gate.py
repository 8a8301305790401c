"""What falls off the NPU is told before Vela runs: which op, why, where, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ops.harness import normal, traced
from toolchain import deploy, lint, samples_from
from toolchain.backends.vela.gate import find
from toolchain.errors import UnsupportedError
from toolchain.graph import Finding, Graph
from toolchain.profiles import load_profile

pytest.importorskip("ethosu.regor", reason="the extra npu is not installed")

X = normal(1, 8, 16, 16)


def found(made, device: str = "ethos-u55-128", x: np.ndarray = X) -> tuple[Finding, ...]:
    return find(graph_of(made, x), load_profile(device))


def graph_of(made, x: np.ndarray = X) -> Graph:
    return traced(made, x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.narrow(F.pixel_shuffle(self.wide(x), 2)).mean(1)


def test_a_finding_says_which_why_where_and_what_instead() -> None:
    (mean,) = found(Net())
    assert mean.op == "mean mean" and mean.why.startswith("MEAN: a mean over channels of [1, 32, 32, 4]")
    assert mean.source.file.endswith("test_vela_gate.py") and mean.dtype == "int8" and mean.instead and mean.blocks
    # the pixel shuffle is the profile's own to refuse, once
    told = lint(Net(), target="ethos-u55-128", example_inputs=(X,))
    assert [finding.op for finding in told.findings] == ["depth_to_space depth_to_space", "mean mean"]
    assert told.blocks


def test_a_deployment_is_refused_before_vela_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.backends.vela.compiler.compile_file", lambda *_: pytest.fail("Vela ran"))
    samples = samples_from(np.repeat(X, 8, axis=0))
    with pytest.raises(UnsupportedError, match=r"2 op\(s\).*\n.*conv_transpose2d of stride 2.*\n.*mean over channels"):
        deploy((Net(), torch.from_numpy(X)), target="ethos-u55-128", calibration=samples, out=tmp_path, store=None)


@pytest.mark.parametrize(
    ("made", "u55", "u85"),
    [
        (nn.Conv2d(8, 8, 4, 4), "", ""),
        (lambda x: x[:, ::2], "a step of 2 along axis 3", "a step of 2 along axis 3"),
        (lambda x: F.softmax(x.reshape(1, 1, 16, 128), 3) @ x.reshape(1, 1, 128, 16), "", ""),
        (lambda x: x.permute(0, 2, 3, 1).reshape(1, 16, 2, 8, 8).permute(0, 3, 1, 4, 2), "", ""),
        (nn.Conv2d(8, 8, 8, 4, 2), "", ""),  # the profile tells it
        (lambda x: torch.where(x.to(torch.bool), x, x * 0.5), "", ""),  # float, and told by the profile
    ],
)
def test_findings_by_device(made, u55: str, u85: str) -> None:
    for device, said in (("ethos-u55-128", u55), ("ethos-u65-512", u55), ("ethos-u85-256", u85)):
        whys = [finding.why for finding in found(made, device)]
        assert [why.partition(": ")[2] for why in whys] == ([said] if said else []), device


def test_a_pad_that_vela_joins_with_a_convolution_and_dies_of() -> None:
    """Its own padding, or what stands in front: on an Ethos-U55 Vela ends with an error and names no reason."""
    profile = load_profile("ethos-u55-128")
    open_profile = profile.model_copy(update={"execution": profile.execution.model_copy(update={"limits": ()})})
    graph = graph_of(nn.Conv2d(8, 8, 7, 4, 3))
    (finding,) = find(graph, open_profile)
    assert finding.why == "CONV_2D: stride is 4 beside padding or dilation, where the NPU takes at most 3"
    assert find(graph, load_profile("ethos-u85-256")) == ()


def test_arithmetic_on_64_bits_of_which_vela_dies() -> None:
    table, places = normal(4, 8), np.array([0, 2], np.int64)
    graph = traced(lambda x, at: x[at + 1], table, places)
    wide = [finding for finding in find(graph, load_profile("ethos-u85-256")) if finding.op == "add add"]
    assert [finding.why for finding in wide] == ["ADD: inputs_1 is int64, of which the compiler dies"]
    assert wide[0].instead == "whole numbers of 32 bits, made outside the model"
    looked_up = traced(lambda x, at: F.embedding(at, x), table, places)
    assert find(looked_up, load_profile("ethos-u85-256")) == ()


def test_a_device_that_the_tables_do_not_know_has_no_findings() -> None:
    assert find(graph_of(Net()), load_profile("cortex-a76")) == ()
