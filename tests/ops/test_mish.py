"""mish."""

import numpy as np
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_mish():
    check(F.mish, normal(1, 4, 5, 6), ops={Op.MISH})


def test_large_values():
    """Nothing overflows in float."""
    check(F.mish, np.array([[-1e20, -300, -90, -15, 15, 90, 1e20]], np.float32), int8=False)
