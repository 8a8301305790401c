"""prelu with a slope a channel."""

import pytest
import torch
from torch import nn

from tests.ops.harness import check, normal
from toolchain.graph import Op


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (1, 4, 7), (1, 4)])
def test_prelu(shape):
    module = nn.PReLU(4)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.3, -0.2, 1.2, 0.0]))
    check(module, normal(*shape), ops={Op.PRELU})
