"""What takes places along an axis: indices in brackets, embeddings, flips, repeats, windows."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.engine.tracing.tracer import trace
from toolchain.errors import UnsupportedError
from toolchain.graph import Op

IMAGE = normal(1, 4, 6, 5)
I = torch.tensor([2, 0, 3])  # noqa: E741  as in the formulas


def pooled(function):
    """`function` of an image that lies channels last."""
    return lambda x: function(F.max_pool2d(x, 1))


INDEXED = {
    "one axis": lambda x: x[:, I],
    "from the end": lambda x: x[:, :, I - 4],
    "a matrix of places": lambda x: x[:, :, torch.tensor([[0, 2], [4, 5]])],
    "neighbouring axes": lambda x: x[:, :, I, I],
    "a grid": lambda x: x[:, :, I[:, None], I[None]],
    "axes apart": lambda x: x[:, I, :, I],
    "with a new axis": lambda x: x[:, None, I],
    "a mask": lambda x: x[:, torch.tensor([True, True, False, True])],
    "a mask over two axes": lambda x: x[:, :, torch.ones(6, 5).tril().bool()],
    "a computed mask": lambda x: x[:, :, torch.arange(6) % 3 != 1].flatten(2),
    "index_select": lambda x: x.index_select(2, I),
    "flip": lambda x: x.flip(1, 3),
    "fliplr": torch.fliplr,
    "rot90": lambda x: (torch.rot90(x, 1, (2, 3)), torch.rot90(x, 3, (2, 3)), torch.rot90(x, 2, (2, 3))),
    "repeat_interleave": lambda x: x.repeat_interleave(3, 2),
    "repeat_interleave unevenly": lambda x: x.repeat_interleave(torch.tensor([1, 0, 2, 1]), 1),
    "unfold": lambda x: x.unfold(2, 3, 2),
    "unfolded images": lambda x: F.unfold(x, (3, 2), dilation=(2, 1), padding=(1, 0), stride=(1, 2)),
}


@pytest.mark.parametrize("case", INDEXED)
def test_places_that_are_known(case):
    check(pooled(INDEXED[case]), IMAGE, ops={Op.GATHER})


def test_even_places_are_a_slice():
    graph = check(lambda x: (x[:, torch.tensor([0, 2])], x[:, :, [1, 2, 3]]), IMAGE)
    assert {node.op for node in graph.nodes} == {Op.SLICE}


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_embedding(dtype):
    tokens = np.array([[3, 1, 0, 9, 9]], dtype)
    check(nn.Sequential(nn.Embedding(10, 6, padding_idx=0), nn.Linear(6, 3)), tokens, ops={Op.GATHER})


def test_places_that_are_computed():
    i, j = np.array([[3, -1, 0, -6]]), np.array([[0, -2, 4, 1]])
    check(lambda x, i: x[:, :, i[0]], IMAGE, i, ops={Op.GATHER, Op.WHERE})
    check(lambda x, i, j: x[:, :, i[0], j[0]], IMAGE, i, j, ops={Op.GATHER})


def test_a_weight_that_is_also_a_table_is_stored_once_in_float():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 6)
            self.head = nn.Linear(6, 10)
            self.head.weight = self.table.weight

        def forward(self, tokens):
            return self.head(self.table(tokens))

    graph = check(Tied(), np.array([[3, 1, 0, 9]]), ops={Op.GATHER, Op.LINEAR})
    assert set(graph.constants) == {"table.weight", "head.bias"}


def test_bags_of_one_size():
    bag = nn.EmbeddingBag(10, 6, mode="sum")
    check(nn.Sequential(bag), np.array([[3, 1, 0, 9]]), ops={Op.GATHER, Op.SUM})


REFUSED = {
    "a mask of the input": (lambda x: x[x > 0], "mask"),
    "out of bounds": (lambda x: x.index_select(1, torch.tensor([0, 7]) * 1), "out of bounds|fails"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_depends_on_the_data_is_refused(case):
    function, message = REFUSED[case]

    class Module(nn.Module):
        def forward(self, x):
            return function(x)

    with pytest.raises(UnsupportedError, match=message):
        trace(Module(), (IMAGE,))
