"""floor and trunc."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_floor():
    check(torch.floor, normal(1, 4, 5, 6), ops={Op.FLOOR})


def test_trunc():
    check(torch.trunc, normal(1, 4, 5, 6), ops={Op.FLOOR, Op.SIGN})


def test_large_values():
    """Nothing overflows in float."""
    check(torch.floor, np.array([[-1e9, -1.5, -0.5, 0.5, 1e9]], np.float32), int8=False)
