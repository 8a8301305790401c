"""log_softmax along any axis."""

import numpy as np
import pytest
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_log_softmax(axis):
    check(lambda x: F.log_softmax(x, axis), normal(1, 4, 5, 6), ops={Op.LOG_SOFTMAX})


def test_of_many():
    check(lambda x: F.log_softmax(x, 1), normal(1, 1000), ops={Op.LOG_SOFTMAX})


def test_large_values():
    check(lambda x: F.log_softmax(x, 1), np.array([[-1e4, -90, 0, 90, 1e4]], np.float32), int8=False)
