"""Largest and smallest values: max, min, amax, amin, aminmax; any and all are those of 0 and 1."""

from __future__ import annotations

import pytest
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op

X = normal(1, 4, 5, 6)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("axes", [1, (1, 2), (2, 3), -1, (1, 2, 3)])
def test_amax_and_amin(axes, keepdim):
    check(lambda x: (x.amax(axes, keepdim), x.amin(axes, keepdim)), X, ops={Op.REDUCE_MAX, Op.REDUCE_MIN})


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("axis", [1, -1])
def test_values_and_indices(axis, keepdim):
    ops = {Op.REDUCE_MAX, Op.ARGMAX, Op.REDUCE_MIN, Op.ARGMIN}
    check(lambda x: (*x.max(axis, keepdim), *x.min(axis, keepdim)), X, ops=ops)


def test_values_alone_need_no_indices():
    graph = check(lambda x: x.max(1).values, X, ops={Op.REDUCE_MAX})
    assert Op.ARGMAX not in {node.op for node in graph.nodes}


def test_of_all():
    check(lambda x: (x.max()[None], x.min()[None], x.amax()[None]), X)
    check(lambda x: torch.aminmax(x, dim=1, keepdim=True), X)


def test_any_and_all():
    check(lambda x: ((x > 5).any(1), (x > -5).all(1), (x > 3).any()[None], (x > -3).all((1, 2))), X)


def test_whole_numbers():
    n = (X * 3).astype("int32")
    check(lambda n: (n.amax(1), n.amin(2), n.any(1)), n, int8=False)
