"""Pads with a value, mirrored, with the edge repeated and around the other end; negative ones cut."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn import functional as F

from tests.ops.harness import Call, check, normal, operators, traced
from toolchain.errors import UnsupportedError
from toolchain.graph import Op

IMAGE, SEQUENCE = normal(2, 4, 7, 6), normal(2, 4, 9)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("amounts", [(1, 1, 1, 1), (0, 1, 0, 0), (3, 2, 1, 4)])
def test_images(mode, amounts):
    graph = check(Call(lambda x: F.pad(x, amounts, mode)), IMAGE, ops={Op.PAD})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_sequences(mode):
    graph = check(Call(lambda x: F.pad(x, (3, 2), mode)), SEQUENCE)
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("amounts", [(1, 1, 1, 1), (3, 0, 1, 4)])
def test_circular(amounts):
    check(Call(lambda x: F.pad(x, amounts, "circular")), IMAGE, ops={Op.CONCAT})


@pytest.mark.parametrize(
    "module", [nn.ConstantPad2d(2, 0.75), nn.ZeroPad2d((1, 0, 2, 3)), nn.ReflectionPad2d(2), nn.ReplicationPad2d(3)]
)
def test_modules(module):
    check(module, IMAGE, ops={Op.PAD})


def test_negative_amounts_cut():
    check(Call(lambda x: F.pad(x, (-1, 2, 0, -3))), IMAGE, ops={Op.SLICE, Op.PAD})


def test_a_repeated_edge_of_one_is_one_operator():
    assert operators(traced(nn.ReplicationPad2d(1), IMAGE)) == {"MIRROR_PAD": 1}


def test_a_mirrored_pad_is_not_taken_for_zeros_of_the_convolution_behind_it():
    graph = check(nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(4, 4, 3)), IMAGE)
    assert [node.op for node in graph.nodes] == [Op.PAD, Op.CONV2D]


def test_a_reflection_longer_than_the_image_is_refused():
    with pytest.raises(UnsupportedError):
        traced(lambda x: F.pad(x, (9, 0), "reflect"), SEQUENCE)
