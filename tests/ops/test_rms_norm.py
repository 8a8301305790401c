"""Root mean square norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.ops.harness import check, normal
from toolchain.graph import Op


@pytest.mark.parametrize("shape", [8, (5, 8)])
@pytest.mark.parametrize("options", [{}, {"eps": 1e-3}, {"elementwise_affine": False}])
def test_rms_norm(shape, options):
    torch.manual_seed(0)
    module = nn.RMSNorm(shape, **options)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    check(module, normal(2, 5, 8), ops={Op.RMS_NORM})


def test_written_by_hand():
    check(lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6), normal(2, 5, 8))
