"""Linear layers: every executor computes what torch does, in float and in int8 to a step."""

from __future__ import annotations

import pytest
from torch import nn

from tests.ops.harness import check, normal
from toolchain.graph import Op

CASES = [
    (nn.Linear(8, 5), (1, 8)),
    (nn.Linear(8, 5, bias=False), (1, 5, 8)),
    (nn.Sequential(nn.Linear(8, 5), nn.ReLU()), (1, 3, 5, 8)),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 5)), (1, 3, 6, 6)),
]


@pytest.mark.parametrize(("module", "shape"), CASES)
def test_linear(module, shape):
    check(module, normal(*shape), ops={Op.LINEAR})
