"""rsqrt, and powers that are."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_rsqrt():
    check(torch.rsqrt, np.abs(normal(1, 4, 5, 6)) + 0.3, ops={Op.RSQRT})


def test_power():
    check(lambda x: x**-0.5, np.abs(normal(1, 4, 5, 6)) + 0.3, ops={Op.RSQRT})
