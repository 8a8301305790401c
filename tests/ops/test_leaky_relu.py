"""leaky_relu, and a prelu of one slope, which is the same."""

import pytest
from torch import nn
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.2, 1.5, -0.3])
def test_leaky_relu(slope):
    check(lambda x: F.leaky_relu(x, slope), normal(1, 4, 5, 6), ops={Op.LEAKY_RELU})


def test_prelu_of_one_slope():
    check(nn.PReLU(), normal(1, 4, 5, 6), ops={Op.LEAKY_RELU})
