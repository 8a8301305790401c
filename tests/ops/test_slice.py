"""What cuts: slices with steps, selections, splits, windows along a diagonal."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op

IMAGE = normal(1, 4, 6, 5)

CUTS = {
    "steps": lambda x: x[:, ::2, 1::3, -3:],
    "select": lambda x: (x[:, -1], x[:, :, 2], x[..., 0]),
    "narrow": lambda x: x.narrow(2, -3, 2),
    "split": lambda x: x.split([1, 3], 1),
    "split evenly": lambda x: x.split(2, 3),
    "chunk": lambda x: x.chunk(4, 2),
    "unbind": lambda x: x.unbind(1),
    "tensor_split": lambda x: (*x.tensor_split(3, 3), *x.tensor_split((1, 4), 2)),
    "hsplit and dsplit": lambda x: (*torch.hsplit(x, 2), *torch.dsplit(x, 3)),
    "diagonal": lambda x: (x.diagonal(1, 2, 3), x.diagonal(-2, 2, 3)),
}


@pytest.mark.parametrize("case", CUTS)
def test_cuts(case):
    check(lambda x: CUTS[case](F.max_pool2d(x, 1)), IMAGE, ops={Op.SLICE})


def test_many_axes():
    """More than the kernels of a slice have: axes that are not cut are seen as one."""
    check(lambda x: x.reshape(1, 2, 2, 2, 3, 5)[:, :, :, :, 1:], IMAGE, ops={Op.SLICE})


def test_integers_and_booleans():
    n = np.arange(12).reshape(1, 3, 4)
    check(lambda n: (n[:, :, 1::2], (n > 4)[:, 1:]), n, ops={Op.SLICE}, int8=False)
