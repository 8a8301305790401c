"""pow, by a number, of a number and by a tensor."""

import numpy as np
import pytest
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op

BASE = np.abs(normal(1, 4, 5, 6)) + 0.3


def test_pow():
    check(torch.pow, BASE, normal(1, 4, 5, 6, seed=1), ops={Op.POW})


def test_by_a_number():
    check(lambda x: x**1.7, BASE, ops={Op.POW})


def test_of_a_number():
    check(lambda x: (2**x, torch.exp2(x)), normal(1, 4, 5, 6), ops={Op.POW})


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    check(lambda n: (n**5, 2 ** n.abs()), np.arange(-6, 6, dtype=dtype).reshape(3, 4), int8=False, ops={Op.POW})
