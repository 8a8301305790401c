"""where and masked_fill, of tensors and numbers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal, traced
from toolchain.graph import Op


def test_where():
    check(lambda x, y: torch.where(x > y, x, y * 2), normal(1, 4, 5, 6), normal(1, 4, 5, 6, seed=1), ops={Op.WHERE})


def test_numbers():
    check(lambda x: (torch.where(x > 0.5, x, 0.2), torch.where(x > 0.5, 0.2, x)), normal(1, 4, 5, 6), ops={Op.WHERE})


def test_masked_fill():
    x = normal(1, 4, 5, 6)
    check(lambda x, m: (x.masked_fill(m, 0.0), x.masked_fill(m[:, :1], -3.0)), x, x > 0, ops={Op.WHERE})


def test_thresholds():
    check(lambda x: (F.threshold(x, 0.1, 2.0), F.hardshrink(x)), normal(1, 4, 5, 6), ops={Op.WHERE})


def test_booleans():
    check(lambda x: torch.where(x > 0, x < 2, x > -1), normal(1, 4, 5, 6), ops={Op.LOGICAL_OR})


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    n = np.arange(-6, 6, dtype=dtype).reshape(3, 4)
    check(lambda n: (torch.where(n > 0, n, -n), torch.where(n > 0, n, 7), n.masked_fill(n > 2, 1)), n, int8=False)


def test_an_infinite_number_is_a_mask():
    """Finite in the graph, so that a broken weight is still refused."""
    graph = traced(lambda x: x.masked_fill(x > 0, -torch.inf), normal(1, 4))
    assert all(np.isfinite(array).all() for array in graph.constants.values())
