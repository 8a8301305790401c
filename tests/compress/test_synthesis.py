"""Inputs that are made of a network's own statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toolchain.compress.synthesis import MOST, affordable_inputs, index_bounds, synthesise
from toolchain.engine.tracing.tracer import trace
from toolchain.graph import Graph, parse_graph

PICTURE = np.zeros((1, 3, 16, 16), np.float32)


def normed(mean: float, deviation: float) -> Graph:
    """A network whose first layer is the identity, so that its norm remembers the inputs' own statistics."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3)[..., None, None])
        net[0].bias.zero_()
        x = torch.randn(64, 3, 16, 16) * deviation + mean
        for norm in (net[1], net[4]):
            norm.momentum = None
        net.train()(x)
    return trace(net, (PICTURE,))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (2.0, 4.0), (120.0, 60.0), (-0.1, 0.1)])
def test_inputs_get_the_mean_and_deviation_that_the_norm_remembers(mean: float, deviation: float) -> None:
    made = synthesise(normed(mean, deviation), [PICTURE], 16)
    (x,) = made.inputs
    assert x.shape == (16, 3, 16, 16) and x.dtype == np.float32
    assert made.norms == 2 and made.distance_after < made.distance_before
    # the two norms share a distance of d: the first, whose mean over both parts is at most 2 d, is within sqrt(3 * 2 d)
    near = np.sqrt(6 * made.distance_after) * deviation
    assert np.abs(x.mean((0, 2, 3)) - mean).max() <= near
    assert np.abs(x.std((0, 2, 3)) - deviation).max() <= near
    assert near < deviation, "a bound that would let anything pass"


def test_the_same_for_a_seed_and_another_for_another() -> None:
    graph = normed(0.5, 2.0)
    first, again, other = (synthesise(graph, [PICTURE], 4, seed=seed).inputs[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_pictures_are_smooth_and_bounded() -> None:
    (x,) = synthesise(trace(nn.Conv2d(3, 4, 3), (PICTURE,)), [PICTURE], 32).inputs
    # white noise has steps of sqrt(2) deviations from pixel to pixel
    assert np.diff(x, axis=3).std() < x.std()
    assert np.abs(x).max() <= 2.2


def test_each_belongs_to_a_class_more_clearly_than_noise_does() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
    (x,) = synthesise(trace(net, (PICTURE,)), [PICTURE], 24).inputs
    net.eval()
    with torch.no_grad():
        made, noise = (net(y).softmax(1).amax(1) for y in (torch.from_numpy(x), torch.randn(24, 3, 16, 16)))
    assert float(made.min()) > 0.5 > float(noise.mean()), "scores of untrained networks are near each other"


def test_without_norms_the_example_tells_the_scale_where_it_varies() -> None:
    graph = trace(nn.Linear(200, 2), (np.zeros((1, 200), np.float32),))
    example = np.random.default_rng(0).normal(40, 5, (1, 200)).astype(np.float32)
    told, untold = (synthesise(graph, [e], 50) for e in (example, np.zeros_like(example)))
    assert told.norms == untold.norms == 0 and "no batch norm" in str(told)
    # u has exactly mean 0 in each channel and deviation 1 over all
    np.testing.assert_allclose([told.inputs[0].mean(), untold.inputs[0].mean()], [example.mean(), 0], atol=1e-3)
    np.testing.assert_allclose([told.inputs[0].std(), untold.inputs[0].std()], [example.std(), 1], rtol=1e-3)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(50, 8), nn.Embedding(6, 8)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.table(ids) + self.places(torch.arange(6))
        return x.masked_fill(~mask[..., None], 0.0).sum(1)


def test_token_ids_lie_below_the_rows_of_their_table_and_masks_stay() -> None:
    examples = [np.zeros((1, 6), np.int64), np.array([[True] * 5 + [False]])]
    graph = trace(Words().eval(), tuple(examples))
    assert index_bounds(graph) == {"ids": 50}
    ids, mask = synthesise(graph, examples, 200).inputs
    # 1,200 draws miss a given one of 50 with a chance of 3e-11
    assert set(np.unique(ids)) == set(range(50)) and ids.dtype == np.int64
    np.testing.assert_array_equal(mask, np.repeat(examples[1], 200, 0))


def test_ids_that_are_computed_with_stay_what_they_are() -> None:
    graph = parse_graph("""
        input ids: int64[1,3]
        constant one: int64[1]
        constant table: float32[4,2]
        next = add(ids, one)
        y = gather(table, next) axis=0
        output y""")
    example = np.array([[0, 1, 2]])
    assert index_bounds(graph) == {}
    np.testing.assert_array_equal(synthesise(graph, [example], 2).inputs[0], np.repeat(example, 2, 0))


def test_a_larger_network_gets_fewer() -> None:
    small = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (PICTURE,))
    picture = np.zeros((1, 3, 512, 512), np.float32)
    large = trace(nn.Sequential(nn.Conv2d(3, 256, 3), nn.BatchNorm2d(256)), (picture,))
    assert affordable_inputs(small) == MOST > affordable_inputs(large)
