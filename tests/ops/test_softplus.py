"""softplus and logsigmoid."""

import numpy as np
import pytest
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


@pytest.mark.parametrize(("beta", "threshold"), [(1.0, 20.0), (2.0, 20.0), (2.0, 3.0)])
def test_softplus(beta, threshold):
    check(lambda x: F.softplus(x, beta, threshold), normal(1, 4, 5, 6), ops={Op.SOFTPLUS})


def test_logsigmoid():
    check(F.logsigmoid, normal(1, 4, 5, 6), ops={Op.SOFTPLUS, Op.NEG})


@pytest.mark.parametrize("function", [F.softplus, F.logsigmoid])
def test_large_values(function):
    check(function, np.array([[-1e4, -300, -90, -30, -1e-3, 0, 1e-3, 30, 90, 300, 1e4]], np.float32), int8=False)
