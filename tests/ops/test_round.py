"""round, halves to even, and to decimals."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_round():
    check(torch.round, normal(1, 4, 5, 6), ops={Op.ROUND})


def test_halves():
    check(torch.round, np.array([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]], np.float32), int8=False)


def test_decimals():
    check(lambda x: torch.round(x, decimals=1), normal(1, 4, 5, 6), ops={Op.ROUND})
