"""relu6."""

from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op


def test_relu6():
    check(F.relu6, normal(1, 4, 5, 6), ops={Op.RELU6})
