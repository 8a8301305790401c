"""What is known to fail on the HTP is said before anything is compiled, with what to write instead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.backends.qnn.htp_networks import profile_of
from tests.ops.harness import Call, normal, traced
from toolchain.backends.qnn import QNN
from toolchain.errors import UnsupportedError
from toolchain.profiles import check_ops, check_shapes, device_findings

IMAGE = normal(1, 4, 6, 6)
BEHIND_A_RELU = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU())


def find(module, *inputs, socs=("SM8650",)):
    assert QNN.find is not None
    return QNN.find(traced(module, *inputs), profile_of(*socs))


def test_old_compilers_may_lack_memory_for_a_pointwise_depthwise_convolution():
    (found,) = find(BEHIND_A_RELU, IMAGE, socs=("SM8450", "SM8650", "SM8475"))
    assert not found.blocks and "for SM8450, SM8475" in found.why
    assert find(BEHIND_A_RELU, IMAGE, socs=("SM8550", "SM8650")) == ()


def test_more_than_5_axes_are_refused_but_where_they_only_move():
    """QNN takes the windows of a Swin transformer, whose reshapes and permutes it joins."""
    moved = find(Call(lambda x: (2 * x).reshape(1, 2, 2, 2, 3, 6).permute(0, 2, 1, 4, 3, 5)), IMAGE)
    assert len(moved) == 2 and not any(found.blocks for found in moved)
    (refused,) = (one for one in find(Call(lambda x: 2 * x.reshape(1, 2, 2, 2, 3, 6)), IMAGE) if one.blocks)
    assert refused.why == "6 axes, the HTP takes 5" and refused.instead


def test_ordinary_layers_are_silent():
    layers = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8), nn.Hardswish(), nn.Flatten())
    assert find(layers, IMAGE, socs=("SM8350", "SM8850")) == ()


REFUSED = {
    "erf": (Call(torch.erf), (IMAGE,), "gelu, tanh or sigmoid"),
    "rnn": (nn.RNN(4, 5, batch_first=True), (normal(1, 3, 4),), "an LSTM or a GRU"),
    "matmul of 5 axes": (Call(torch.matmul), (normal(2, 2, 3, 5, 8), normal(2, 2, 3, 8, 6)), "join the axes"),
    "dilated conv_transpose2d": (nn.ConvTranspose2d(4, 4, 3, dilation=2), (IMAGE,), "a resize"),
}


@pytest.mark.parametrize(("module", "inputs", "instead"), REFUSED.values(), ids=REFUSED.keys())
def test_the_profile_refuses_with_a_cure(module, inputs, instead):
    graph = traced(module, *inputs)
    findings = [found for found in device_findings(graph, profile_of("SM8650")) if found.blocks]
    assert any(found.instead.startswith(instead) for found in findings)
    with pytest.raises(UnsupportedError, match="qualcomm-htp cannot run"):
        check_ops(graph, profile_of("SM8650"), "qualcomm-htp")


def test_a_dynamic_batch_is_refused_before():
    with pytest.raises(UnsupportedError, match="dynamic batch"):
        check_shapes(True, profile_of("SM8650"), "qualcomm-htp")
