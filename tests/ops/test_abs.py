"""abs, of reals and whole numbers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_abs():
    check(torch.abs, normal(1, 4, 5, 6), ops={Op.ABS})


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    check(torch.abs, np.arange(-5, 7, dtype=dtype).reshape(3, 4), int8=False, ops={Op.ABS})


def test_softsign():
    check(F.softsign, normal(1, 4, 5, 6), ops={Op.ABS, Op.DIV})
