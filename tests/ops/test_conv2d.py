"""Convolutions along one axis and over images."""

from __future__ import annotations

import pytest
from torch import nn

from tests.ops.harness import check, normal, operators
from toolchain.graph import Op

IMAGE, SEQUENCE = normal(2, 4, 9, 8), normal(2, 4, 11)

WINDOWS = {
    "plain": {},
    "stride": {"stride": 2},
    "padding": {"padding": 1},
    "all": {"stride": (2, 1), "padding": (2, 1), "dilation": (1, 2), "groups": 2},
    "same": {"padding": "same", "kernel_size": (4, 3), "dilation": (1, 2)},
    "valid": {"padding": "valid", "bias": False},
}


@pytest.mark.parametrize("case", WINDOWS)
def test_images(case):
    window = {"kernel_size": 3, **WINDOWS[case]}
    graph = check(nn.Conv2d(4, 6, **window), IMAGE, ops={Op.CONV2D})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode):
    check(nn.Conv2d(4, 6, 3, padding=2, padding_mode=mode), IMAGE)


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"stride": 2, "padding": 1, "groups": 2},
        {"dilation": 3, "padding": 4},
        {"padding": "same", "kernel_size": 4},
        {"padding": 2, "padding_mode": "reflect", "groups": 4},
    ],
)
def test_sequences_are_convolved_as_images_and_never_transposed(window):
    graph = check(nn.Conv1d(4, 8, **{"kernel_size": 3, **window}), SEQUENCE)
    assert "TRANSPOSE" not in operators(graph)


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=2, dilation=2)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        y = self.second(self.norm(self.first(x)).relu())
        return (x + y).relu()


def test_what_lies_between_convolutions_of_sequences_folds_into_them():
    graph = check(nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), _Residual(), nn.MaxPool1d(2)), SEQUENCE)
    assert [node.op for node in graph.nodes] == [
        *(Op.RESHAPE, Op.CONV2D, Op.CONV2D, Op.CONV2D, Op.ADD, Op.MAX_POOL2D, Op.RESHAPE)
    ]
    assert "TRANSPOSE" not in operators(graph)


def test_a_weight_that_two_layers_share_is_stored_once_under_its_name():
    conv = nn.Conv1d(4, 4, 3, padding=1)
    graph = check(nn.Sequential(conv, nn.Tanh(), conv), SEQUENCE)
    assert set(graph.constants) == {"0.weight", "0.bias"}
