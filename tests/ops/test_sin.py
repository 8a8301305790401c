"""sin."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_sin():
    check(torch.sin, normal(1, 4, 5, 6), ops={Op.SIN})


def test_large_values():
    """Nothing overflows in float."""
    check(torch.sin, np.array([[-1e4, -300, -90, -30, 30, 90, 300, 1e4]], np.float32), int8=False)
