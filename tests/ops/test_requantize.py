"""A requantize: the same values under parameters of their own."""

import torch

from tests.ops.harness import check_int8, normal, traced
from toolchain.graph import Op


def test_requantize():
    """A softmax beside what its fixed range does not cover."""
    x, y = normal(1, 6), normal(1, 6, seed=1)
    graph = traced(lambda x, y: torch.cat([torch.softmax(x, 1), y], 1), x, y)
    model = check_int8(graph, x, y)
    assert Op.REQUANTIZE in {node.op for node in model.graph.nodes}
