"""Sums so far along an axis."""

from __future__ import annotations

import pytest

from tests.ops.harness import check, normal
from toolchain.graph import Op


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_cumsum(axis):
    check(lambda x: x.cumsum(axis), normal(1, 4, 5, 6), ops={Op.CUMSUM})


def test_of_what_is_counted():
    check(lambda x: (x > 0).cumsum(1), normal(2, 7))
