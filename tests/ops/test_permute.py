"""Permutes under all their names."""

import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal, traced
from toolchain.graph import Op

IMAGE = normal(1, 4, 6, 5)

PERMUTES = {
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, -1),
    "swapaxes": lambda x: x.swapaxes(1, 2),
    "mT and adjoint": lambda x: (x.mT, x.adjoint()),
    "movedim": lambda x: (x.movedim(1, 3), torch.movedim(x, (1, 2), (3, 1)), x.moveaxis(-1, 1)),
    "T": lambda x: (x[0, 0].T[None], x[0, 1].t()[None]),
    "einops": lambda x: x.reshape(1, 4, 3, 2, 5, 1).permute(0, 2, 4, 1, 3, 5).reshape(1, 15, 8),
}


@pytest.mark.parametrize("case", PERMUTES)
def test_permutes(case):
    check(lambda x: PERMUTES[case](F.max_pool2d(x, 1)), IMAGE, ops={Op.PERMUTE})


def test_consecutive_ones_are_one():
    (node,) = traced(lambda x: x.permute(0, 2, 3, 1).permute(0, 2, 1, 3), IMAGE).nodes
    assert node["axes"] == (0, 3, 2, 1)


def test_one_and_its_inverse_are_none():
    graph = traced(lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2).relu(), IMAGE)
    assert [node.op for node in graph.nodes] == [Op.RELU]


def test_more_axes_than_the_kernels_have():
    """Axes that stay neighbours are seen as one."""
    x = normal(1, 2, 3, 2, 2, 2, 3)
    check(lambda x: (x * 2).permute(0, 3, 4, 1, 2, 5, 6) + 1, x, ops={Op.PERMUTE}, int8=False)
