"""sigmoid, silu, glu and logsigmoid."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_sigmoid():
    check(torch.sigmoid, normal(1, 4, 5, 6), ops={Op.SIGMOID})


def test_silu():
    check(F.silu, normal(1, 4, 5, 6), ops={Op.SIGMOID, Op.MUL})


@pytest.mark.parametrize("axis", [1, -1])
def test_glu(axis):
    check(lambda x: F.glu(x, axis), normal(1, 4, 5, 6), ops={Op.SIGMOID, Op.SLICE})


def test_whole_numbers():
    check(torch.sigmoid, np.arange(-5, 7).reshape(3, 4), int8=False)


def test_large_values():
    """Nothing overflows in float."""
    check(F.silu, np.array([[-1e20, -300, -90, 0, 90, 300, 1e20]], np.float32), int8=False)
