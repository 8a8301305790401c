"""hardswish."""

import numpy as np
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_hardswish():
    check(F.hardswish, normal(1, 4, 5, 6), ops={Op.HARDSWISH})


def test_large_values():
    """Nothing overflows in float."""
    check(F.hardswish, np.array([[-1e4, -300, -90, -30, -1e-3, 0, 1e-3, 30, 90, 300, 1e4]], np.float32), int8=False)
