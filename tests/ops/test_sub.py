"""sub and rsub."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_sub():
    check(torch.sub, normal(1, 4, 5, 6), normal(1, 4, 5, 6, seed=1), ops={Op.SUB})


def test_from_a_number():
    check(lambda x: 1 - x, normal(1, 4, 5, 6), ops={Op.SUB})


def test_shrinks():
    check(lambda x: (F.softshrink(x), F.tanhshrink(x)), normal(1, 4, 5, 6), ops={Op.SUB})


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    n = np.arange(-6, 6, dtype=dtype).reshape(3, 4)
    check(lambda n, m: (n - m, 3 - n), n, n[:, :1], int8=False, ops={Op.SUB})
