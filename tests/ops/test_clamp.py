"""clamp, hardtanh and hardsigmoid; in int8 a clamp is exact on integers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal, traced
from toolchain.graph import Op


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (0.1, 1.7), (-1.7, -0.1), (-0.4, None), (None, 0.6), (0.0, 1.0), (-100.0, 100.0)]
)
def test_clamp(low, high):
    check(lambda x: x.clamp(low, high), normal(1, 4, 5, 6), ops={Op.CLAMP})


def test_named_bounds():
    check(lambda x: (F.hardtanh(x, -0.5, 0.7), x.clamp_min(0.3), x.clamp_max(-0.3)), normal(1, 4, 5, 6), ops={Op.CLAMP})


def test_bounds_that_are_tensors():
    bounds = torch.tensor([0.1, 0.2, -0.3, 0.4]).reshape(4, 1, 1)
    check(lambda x: torch.clamp(x, bounds - 1, bounds), normal(1, 4, 5, 6), ops={Op.MAXIMUM, Op.MINIMUM})


def test_whole_numbers():
    check(lambda x: (x.clamp(-2, 3), x.clamp(min=1)), np.arange(-5, 7).reshape(3, 4), int8=False, ops={Op.CLAMP})


def test_bounds_of_zero_are_rectifiers():
    assert [node.op for node in traced(lambda x: (x.clamp(0), x.clamp(0, 6)), normal(2, 3)).nodes] == [
        Op.RELU,
        Op.RELU6,
    ]


def test_hardsigmoid():
    check(F.hardsigmoid, normal(1, 4, 5, 6), ops={Op.ADD, Op.MUL})
