"""gelu, exact and by tanh."""

import numpy as np
import pytest
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate):
    check(lambda x: F.gelu(x, approximate=approximate), normal(1, 4, 5, 6), ops={Op.GELU})


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_large_values(approximate):
    check(lambda x: F.gelu(x, approximate=approximate), np.array([[-1e20, -300, -9, 9, 1e20]], np.float32), int8=False)
