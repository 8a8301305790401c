"""Smallest values along axes: every executor computes what torch does, in float and in int8 to a step."""

from __future__ import annotations

import pytest

from tests.ops.harness import check, normal
from toolchain.graph import Op

CASES = [
    (lambda x: x.amin(1), [(1, 8, 5, 6)]),
    (lambda x: x.amin((2, 3), keepdim=True), [(1, 8, 5, 6)]),
]


@pytest.mark.parametrize(("module", "shapes"), CASES)
def test_reduce_min(module, shapes):
    check(module, *(normal(*shape, seed=seed) for seed, shape in enumerate(shapes)), ops={Op.REDUCE_MIN})
