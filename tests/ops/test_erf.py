"""erf, which TFLite has not."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_erf():
    check(torch.erf, normal(1, 4, 5, 6), ops={Op.ERF})


def test_every_value_to_1e_6():
    check(torch.erf, np.linspace(-6, 6, 10001, dtype=np.float32).reshape(1, -1), int8=False, error=1e-6)


def test_large_values():
    check(torch.erf, np.array([[-1e20, -300, 300, 1e20]], np.float32), int8=False)
