"""elu, celu and selu; alpha and scale are a leaky relu and a product behind it."""

import numpy as np
import pytest
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op

FUNCTIONS = {
    "elu": F.elu,
    "elu alpha": lambda x: F.elu(x, 0.5),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 1.5),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elu(name):
    check(FUNCTIONS[name], normal(1, 4, 5, 6), ops={Op.ELU})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_large_values(name):
    check(FUNCTIONS[name], np.array([[-1e4, -90, -1e-3, 0, 1e-3, 90, 1e4]], np.float32), int8=False)
