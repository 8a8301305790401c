"""log, log2, log10 and log1p, which are float islands in int8; a zero ends at the lowest value."""

import numpy as np
import pytest
import torch

from tests.ops.harness import check, check_int8, normal, traced
from toolchain.graph import Op


@pytest.mark.parametrize("function", [torch.log, torch.log2, torch.log10, torch.log1p])
def test_log(function):
    check(function, np.abs(normal(1, 4, 5, 6)) + 0.3, ops={Op.LOG})


def test_what_rounds_to_zero():
    graph = traced(torch.log, np.float32([[0.001, 0.5, 3.0]]))
    check_int8(graph, np.float32([[0.001, 0.5, 3.0]]))
