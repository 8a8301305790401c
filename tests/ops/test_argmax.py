"""Places of the largest and the smallest value, the first of equal ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.harness import check, normal
from toolchain.graph import Op

X = normal(1, 4, 5, 6)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_along_an_axis(axis, keepdim):
    graph = check(lambda x: (x.argmax(axis, keepdim), x.argmin(axis, keepdim)), X, ops={Op.ARGMAX, Op.ARGMIN})
    assert graph.types[graph.outputs[0]].dtype == "int64"


def test_of_all():
    check(lambda x: (x.argmax()[None], x.argmin()[None]), X)


def test_the_first_of_equal_values():
    check(lambda x: (x.argmax(1), x.argmin(1)), np.float32([[1, 3, 3, 0, 0]]))
