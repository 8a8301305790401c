"""ne: of reals, compared in float also in int8, of whole numbers and of bytes."""

import numpy as np
import pytest

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_not_equal():
    x, y = (np.round(normal(1, 4, 5, 6, seed=seed)) for seed in (0, 1))
    check(lambda x, y: (x != y, (x != 1.0).float() * x), x, y, ops={Op.NOT_EQUAL})


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_whole_numbers(dtype):
    n = np.arange(12, dtype=dtype).reshape(3, 4)
    check(lambda n, m: (n != m, n != 3), n, n[::-1].copy(), int8=False, ops={Op.NOT_EQUAL})


def test_booleans():
    n = np.arange(-6, 6).reshape(3, 4)
    check(lambda n: ((n > 0) != (n < 3), (n > 0) != 1), n, int8=False)
