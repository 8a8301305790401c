"""neg, which int8 kernels know as a difference."""

import numpy as np
import pytest
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_neg():
    check(torch.neg, normal(1, 4, 5, 6), ops={Op.NEG})


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    check(torch.neg, np.arange(-5, 7, dtype=dtype).reshape(3, 4), int8=False, ops={Op.NEG})
