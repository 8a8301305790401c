"""Reshapes under all their names."""

import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op

IMAGE = normal(1, 4, 6, 5)

RESHAPES = {
    "view": lambda x: x.view(1, 2, 60),
    "view_as": lambda x: x.view_as(torch.ones(1, 8, 15)),
    "flatten": lambda x: (x.flatten(1), x.flatten(2)),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "squeeze": lambda x: (x[:, :1].squeeze(1), x[:, :1, :1].squeeze((1, 2))),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "a new axis": lambda x: x[:, :, None],
    "atleast_3d": lambda x: torch.atleast_3d(x.flatten(1)),
}


@pytest.mark.parametrize("case", RESHAPES)
def test_reshapes(case):
    check(lambda x: RESHAPES[case](F.max_pool2d(x, 1)), IMAGE, ops={Op.RESHAPE})
