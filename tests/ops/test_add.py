"""add, with broadcasts, a factor and whole numbers."""

import numpy as np
import pytest
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_add():
    check(torch.add, normal(1, 4, 5, 6), normal(1, 4, 5, 6, seed=1), ops={Op.ADD})


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (1, 1, 6), (1, 1, 5, 6), (1, 1, 1, 6)])
def test_broadcast(shape):
    check(torch.add, normal(1, 4, 5, 6), normal(*shape, seed=1), ops={Op.ADD})


def test_factors():
    check(lambda x, y: (torch.add(x, y, alpha=2), torch.lerp(x, y, 0.3)), normal(1, 4, 5), normal(1, 4, 5, seed=1))


def test_products_added():
    x, y = normal(1, 4, 5, 6), np.abs(normal(1, 4, 5, 6, seed=1)) + 0.5
    check(lambda x, y: (torch.addcmul(x, x, y, value=0.3), torch.addcdiv(x, x, y, value=0.3)), x, y)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    n = np.arange(-6, 6, dtype=dtype).reshape(3, 4)
    check(lambda n, m: (n + m, n + 3, n + 0.5), n, n[:, :1], int8=False, ops={Op.ADD})
