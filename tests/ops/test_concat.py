"""What joins: cat and its like, rolls, and writes to a part of a tensor."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op

IMAGE = normal(1, 4, 6, 5)


def in_a_slice(x):
    y = x * 2
    y[:, 1] = 0.5
    y[:, :, ::2] = x[:, :, ::2]
    return y


def into_zeros(x):
    y = x.new_zeros(1, 4, 6, 8)
    y[..., 1:6] = x
    return y


def at_known_places(x):
    y = x.clone()
    y[:, [2, 0]] = x[:, 1:3]
    return y


JOINS = {
    "cat": lambda x: torch.cat((x, x[:, :1], x), -3),
    "cat with a constant": lambda x: torch.cat((torch.zeros(1, 1, 6, 5), x), 1),
    "cat with nothing": lambda x: torch.cat((x[:, :0], x, x), 1),
    "stack": lambda x: torch.stack((x, -x), 2),
    "hstack and dstack": lambda x: (torch.hstack((x, x)), torch.dstack((x, x))),
    "roll": lambda x: torch.roll(x, (1, -2), (2, 3)),
    "slice_scatter": lambda x: torch.slice_scatter(x, x[:, :2], 1, 1, 3),
    "select_scatter": lambda x: torch.select_scatter(x, x[:, 0], 1, 2),
    "written in a slice": in_a_slice,
    "written into zeros": into_zeros,
    "written at known places": at_known_places,
}


@pytest.mark.parametrize("case", JOINS)
def test_joins(case):
    check(lambda x: JOINS[case](F.max_pool2d(x, 1)), IMAGE, ops={Op.CONCAT})


def test_vectors():
    check(lambda x: torch.column_stack((x[:, 0], x[:, 1])), normal(1, 2, 4), ops={Op.CONCAT})


def test_many_axes():
    """More than the kernels of XNNPACK have."""
    check(lambda x: torch.stack((x, -x), 3), normal(1, 2, 3, 2, 2, 3), ops={Op.CONCAT})
    check(lambda x: torch.cat((x, x * 2), 4), normal(1, 2, 1, 3, 2, 2, 3), ops={Op.CONCAT})


def test_integers_and_booleans():
    n = np.arange(12).reshape(1, 3, 4)
    check(lambda n: (torch.cat((n, n), 1), torch.cat((n > 1, n > 4), 2)), n, ops={Op.CONCAT}, int8=False)


def test_of_unlike_types():
    check(lambda x, n: torch.cat((x, n), 1), normal(1, 3, 4), np.arange(4).reshape(1, 1, 4), ops={Op.CONCAT, Op.CAST})
