"""exp, expm1 and a sum of powers."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_exp():
    check(torch.exp, normal(1, 4, 5, 6), ops={Op.EXP})


def test_expm1():
    check(torch.expm1, normal(1, 4, 5, 6), ops={Op.EXP, Op.SUB})


def test_large_values():
    check(torch.exp, np.array([[-1e5, -300, -90, 0, 60]], np.float32), int8=False)
