"""minimum, of two tensors and of a tensor and constants."""

import numpy as np
import pytest
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


@pytest.mark.parametrize("function", [torch.minimum, torch.min, torch.fmin])
def test_minimum(function):
    check(function, normal(1, 4, 5, 6), normal(1, 4, 5, 6, seed=1), ops={Op.MINIMUM})


def test_broadcast():
    check(torch.minimum, normal(1, 4, 5, 6), normal(1, 4, 1, 1, seed=1), ops={Op.MINIMUM})


def test_constants():
    constants = torch.tensor([0.1, 0.2, -0.3, 0.4]).reshape(4, 1, 1)
    check(lambda x: torch.minimum(x, constants), normal(1, 4, 5, 6), ops={Op.MINIMUM})


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    n = np.arange(-6, 6, dtype=dtype).reshape(3, 4)
    check(torch.minimum, n, -n[:, :1], int8=False, ops={Op.MINIMUM})
