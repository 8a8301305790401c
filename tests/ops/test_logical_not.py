"""logical_not, and exclusive or."""

import numpy as np
import pytest
import torch

from tests.ops.harness import check, normal, traced
from toolchain.errors import UnsupportedError
from toolchain.graph import Op


def test_logical_not():
    check(lambda x: (~(x > 0), torch.logical_not(x > 1)), normal(1, 4, 5, 6), ops={Op.LOGICAL_NOT})


def test_exclusive_or():
    check(lambda x: ((x > 0) ^ (x < 1), torch.logical_xor(x > 0, x < 1)), normal(1, 4, 5, 6), ops={Op.NOT_EQUAL})


def test_bits_of_whole_numbers_are_refused():
    with pytest.raises(UnsupportedError, match="bits of booleans"):
        traced(lambda n: ~n, np.arange(6))
