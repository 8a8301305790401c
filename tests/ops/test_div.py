"""div: of reals, rounded, and of whole numbers, which torch rounds down and the kernels towards zero."""

import numpy as np
import pytest
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op

DIVISOR = np.abs(normal(1, 4, 5, 6, seed=1)) + 0.4


def test_div():
    check(torch.div, normal(1, 4, 5, 6), DIVISOR, ops={Op.DIV})


def test_by_a_number():
    check(lambda x: x / 3.0, normal(1, 4, 5, 6), ops={Op.MUL})


def test_reciprocal():
    check(lambda x: (torch.reciprocal(x), 2 / x, x**-2), DIVISOR, ops={Op.DIV})


@pytest.mark.parametrize("rounding_mode", ["floor", "trunc"])
def test_rounded(rounding_mode):
    check(lambda x, y: torch.div(x, y, rounding_mode=rounding_mode), normal(1, 4, 5, 6), DIVISOR, ops={Op.DIV})


def test_remainders():
    check(lambda x, y: (torch.remainder(x, y), torch.fmod(x, y)), normal(1, 4, 5, 6), DIVISOR)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    n = np.arange(-12, 12, dtype=dtype).reshape(4, 6)
    m = np.where(n % 2, -1, 1) * (abs(n) % 5 + 1)
    functions = (torch.floor_divide, torch.remainder, torch.fmod, torch.div)
    check(
        lambda n, m: (*(f(n, m) for f in functions), torch.div(n, m, rounding_mode="trunc"), n // 3, n % 3),
        *(n, m.astype(dtype)),
        int8=False,
        ops={Op.DIV},
    )
