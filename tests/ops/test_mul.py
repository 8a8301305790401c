"""mul, squares and small powers."""

import numpy as np
import pytest
import torch

from tests.ops.harness import check, normal, traced
from toolchain.graph import Op


def test_mul():
    check(torch.mul, normal(1, 4, 5, 6), normal(1, 4, 5, 6, seed=1), ops={Op.MUL})


def test_powers():
    check(lambda x: (torch.square(x), x**2, x**3, x**4), normal(1, 4, 5, 6), ops={Op.MUL})


def test_by_booleans():
    x = normal(1, 4, 5, 6)
    check(torch.mul, x, x > 0, ops={Op.MUL, Op.CAST})


def test_by_one_is_nothing():
    assert not traced(lambda x: torch.relu(x) * 1, normal(2, 3)).nodes[1:]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    n = np.arange(-6, 6, dtype=dtype).reshape(3, 4)
    check(lambda n, m: (n * m, n * 3, n**2), n, n[:, :1], int8=False, ops={Op.MUL})
