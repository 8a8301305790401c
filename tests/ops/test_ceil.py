"""ceil."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_ceil():
    check(torch.ceil, normal(1, 4, 5, 6), ops={Op.CEIL})


def test_large_values():
    """Nothing overflows in float."""
    check(torch.ceil, np.array([[-1e9, -1.5, -0.5, 0.5, 1e9]], np.float32), int8=False)
