"""tanh."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_tanh():
    check(torch.tanh, normal(1, 4, 5, 6), ops={Op.TANH})


def test_large_values():
    """Nothing overflows in float."""
    check(torch.tanh, np.array([[-1e4, -300, -90, -30, -1e-3, 0, 1e-3, 30, 90, 300, 1e4]], np.float32), int8=False)
