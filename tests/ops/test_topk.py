"""The largest or smallest few along an axis, in order, and their places; sorting is all of them."""

from __future__ import annotations

import pytest
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op

X = normal(1, 4, 5, 6)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_topk(axis, largest):
    check(lambda x: x.topk(3, axis, largest), X, ops={Op.TOPK_VALUES, Op.TOPK_INDICES})


def test_values_alone():
    graph = check(lambda x: x.topk(2, 1).values, X, ops={Op.TOPK_VALUES})
    assert Op.TOPK_INDICES not in {node.op for node in graph.nodes}


def test_sort():
    check(lambda x: (*x.sort(1), *x.sort(-1, descending=True), x.argsort(2), x.argsort(dim=1, stable=True)), X)


def test_sort_of_the_first_axis():
    check(lambda x: torch.msort(x[0])[None], X)
