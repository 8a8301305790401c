"""gather, take_along_dim and one place of each sample, with indices that are computed, given or known."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.ops.harness import check, normal
from toolchain.graph import Op

IMAGE = normal(1, 4, 6, 5)


def indices(*shape: int, below: int, dtype=np.int64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, below, shape).astype(dtype)


@pytest.mark.parametrize(("axis", "below"), [(1, 4), (2, 6), (3, 5)])
def test_gather(axis, below):
    shape = [1, 4, 6, 5]
    shape[axis] = 3
    check(lambda x, i: x.gather(axis, i), IMAGE, indices(*shape, below=below), ops={Op.GATHER_ELEMENTS})


def test_channels_last():
    image = F.max_pool2d
    check(lambda x: image(x, 1).gather(3, (x[:, :, :, :2] > 0).long()), IMAGE, ops={Op.GATHER_ELEMENTS})


def test_fewer_places_on_the_other_axes():
    check(lambda x, i: x.gather(1, i), IMAGE, indices(1, 2, 3, 4, below=4), ops={Op.GATHER_ELEMENTS})


def test_take_along_dim():
    i = indices(1, 1, 6, 2, below=5)
    check(lambda x, i: torch.take_along_dim(x, i, 3), IMAGE, i, ops={Op.GATHER_ELEMENTS, Op.EXPAND})


def test_one_place_of_each_sample():
    graph = check(lambda x, i: x[torch.arange(1), i], IMAGE[:, :, 0], indices(1, below=4), ops={Op.GATHER_ELEMENTS})
    assert graph.types[graph.outputs[0]].shape == (1, 5)


def test_known_places_are_a_gather_along_one_axis():
    places = torch.from_numpy(indices(1, 2, 6, 5, below=4))
    graph = check(lambda x: x.gather(1, places), IMAGE, ops={Op.GATHER})
    assert Op.GATHER_ELEMENTS not in {node.op for node in graph.nodes}


def test_integers_and_booleans():
    i = indices(1, 3, below=4)
    n = np.arange(4)[None]
    check(lambda n, i: (n.gather(1, i), (n > 1).gather(1, i)), n, i, ops={Op.GATHER_ELEMENTS}, int8=False)
