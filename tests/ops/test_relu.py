"""relu, of reals and of whole numbers."""

import numpy as np
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_relu():
    check(F.relu, normal(1, 4, 5, 6), ops={Op.RELU})


def test_whole_numbers():
    check(F.relu, np.arange(-5, 7).reshape(3, 4), int8=False, ops={Op.CLAMP})
