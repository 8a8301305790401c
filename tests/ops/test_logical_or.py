"""logical_or and the bits of booleans."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_logical_or():
    x = normal(1, 4, 5, 6)
    check(lambda x, m: ((x > 0) | m, torch.logical_or(x > 1, m)), x, x < 1.5, ops={Op.LOGICAL_OR})


def test_of_whole_numbers():
    n = np.arange(-6, 6).reshape(3, 4)
    check(lambda n: torch.logical_or(n, n > 2), n, int8=False, ops={Op.LOGICAL_OR})
