"""Places of the largest values in order: every executor computes what torch does, in float and in int8 to a step."""

from __future__ import annotations

import pytest

from tests.ops.harness import check, normal
from toolchain.graph import Op

CASES = [
    (lambda x: x.topk(3), [(1, 5, 8)]),
    (lambda x: x.topk(2, dim=1)[1], [(1, 8, 5, 6)]),
]


@pytest.mark.parametrize(("module", "shapes"), CASES)
def test_topk_indices(module, shapes):
    check(module, *(normal(*shape, seed=seed) for seed, shape in enumerate(shapes)), ops={Op.TOPK_INDICES})
