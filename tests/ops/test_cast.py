"""Casts between reals, whole numbers and booleans."""

import numpy as np

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_of_a_comparison():
    check(lambda x: (x > 0).float() * x, normal(1, 4, 5, 6), ops={Op.CAST})


def test_of_whole_numbers():
    check(lambda n: (n.float() / 4, n.int(), n > 0.5, n * 0.5, n / 3), np.arange(-6, 6).reshape(3, 4), int8=False)


def test_of_bytes():
    check(lambda n: n.float() / 255, np.arange(12, dtype=np.uint8).reshape(3, 4), int8=False, ops={Op.CAST})


def test_to_booleans():
    check(lambda n: (n.bool(), (n > 2).long()), np.arange(-6, 6).reshape(3, 4), int8=False, ops={Op.CAST})
