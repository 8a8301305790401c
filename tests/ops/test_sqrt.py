"""sqrt."""

import numpy as np
import torch

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_sqrt():
    check(torch.sqrt, np.abs(normal(1, 4, 5, 6)), ops={Op.SQRT})
