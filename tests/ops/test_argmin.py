"""Places of the smallest values: every executor computes what torch does, in float and in int8 to a step."""

from __future__ import annotations

import pytest

from tests.ops.harness import check, normal
from toolchain.graph import Op

CASES = [
    (lambda x: x.argmin(1), [(1, 8, 5, 6)]),
    (lambda x: x.argmin(1, keepdim=True), [(1, 5, 8)]),
]


@pytest.mark.parametrize(("module", "shapes"), CASES)
def test_argmin(module, shapes):
    check(module, *(normal(*shape, seed=seed) for seed, shape in enumerate(shapes)), ops={Op.ARGMIN})
