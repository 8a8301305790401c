"""Expansions, and repeats that are some."""

import numpy as np
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op

IMAGE = normal(1, 4, 6, 5)


def test_expand():
    x = normal(1, 4, 1, 5)
    check(lambda x: (x.expand(-1, -1, 6, -1), x.expand_as(torch.ones(1, 4, 6, 5))), x, ops={Op.EXPAND})


def test_channels_last():
    check(lambda x: F.avg_pool2d(x, (6, 5)).expand(-1, -1, 6, 5), IMAGE, ops={Op.EXPAND})


def test_a_new_axis():
    check(lambda x: F.max_pool2d(x, 2)[:, None].expand(-1, 3, -1, -1, -1), IMAGE, ops={Op.EXPAND})


def test_repeats():
    check(lambda x: (x.repeat(1, 2, 1), x.repeat(1, 12, 1), x.tile(2), x[:, :1].repeat(1, 3, 2)), normal(1, 3, 4))


def test_broadcast_tensors_and_meshgrid():
    x = normal(1, 3, 4)
    check(lambda x: torch.broadcast_tensors(x[:, :1], x), x, ops={Op.EXPAND})
    check(lambda x: [a[None] for a in torch.meshgrid(x[0, 0], x[0, 1], indexing="xy")], x, ops={Op.EXPAND})
    check(lambda x: [a[None] for a in torch.meshgrid(x[0, 0], x[0, :, 1], indexing="ij")], x, ops={Op.EXPAND})


def test_before_an_op_that_broadcasts_it_is_dropped():
    graph = check(lambda x: x * x.mean(2, keepdim=True).expand(-1, -1, 4), normal(1, 3, 4))
    assert Op.EXPAND not in {node.op for node in graph.nodes}


def test_integers_and_booleans():
    n = np.arange(3)[None, :, None]
    check(lambda n: (n.expand(1, 3, 4), (n > 1).expand(1, 3, 4)), n, ops={Op.EXPAND}, int8=False)
