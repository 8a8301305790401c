"""sign, of reals and whole numbers."""

import numpy as np
import pytest
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_sign():
    check(torch.sign, normal(1, 4, 5, 6), ops={Op.SIGN})


def test_zero():
    check(torch.sign, np.array([[-2.0, 0.0, 2.0]], np.float32))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    check(torch.sign, np.arange(-5, 7, dtype=dtype).reshape(3, 4), int8=False, ops={Op.SIGN})
