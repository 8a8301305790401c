"""Means over any axes."""

from __future__ import annotations

import pytest

from tests.ops.harness import check, normal
from toolchain.graph import Op

X = normal(1, 4, 5, 6)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("axes", [1, (1, 2), (2, 3), -1, (1, 2, 3)])
def test_mean(axes, keepdim):
    check(lambda x: x.mean(axes, keepdim), X, ops={Op.MEAN})


@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 6), (2, 2, 3, 4, 2)])
def test_other_ranks(shape):
    check(lambda x: (x.mean(1), x.mean(-1, keepdim=True)), normal(*shape))


def test_of_all():
    check(lambda x: x.mean()[None], X)


def test_of_what_is_counted():
    check(lambda x: (x > 0).float().mean(1), X)
