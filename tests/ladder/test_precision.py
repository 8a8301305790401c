"""The integer program against trying everything, and the noise it is given against whole runs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.diagnosis.networks import chain, images, quantized
from toolchain.graph import Graph, parse_graph
from toolchain.ladder.noise import OUTPUT, Noise, measure_noise
from toolchain.ladder.precision import _costs, choose_coarse_weights, choose_fine_nodes

RESIDUAL = parse_graph(
    """
input x: float32[1,4]
constant a.weight: float32[4,4]
constant b.weight: float32[4,4]
a = linear(x, a.weight)
s = add(a, x)
b = linear(s, b.weight)
t = add(s, b)
output t
"""
)


def noise(seed: int) -> Noise:
    random = np.random.default_rng(seed)
    ways = [("x", "a"), ("x", "s"), ("a", "s"), ("s", "b"), ("s", "t"), ("b", "t"), ("t", OUTPUT)]
    return Noise(
        {name: float(random.exponential()) for name in ("a", "b")}, {way: float(random.exponential()) for way in ways}
    )


def left(found: Noise, chosen: set[str]) -> float:
    """Noise where these nodes compute in float."""
    constants = sum(value for name, value in found.constants.items() if name not in chosen)
    fine = chosen | ({"x"} if {"a", "s"} <= chosen else set())  # an input that float nodes alone read is not rounded
    return constants + sum(
        value
        for (tensor, reader), value in found.activations.items()
        if tensor not in fine or (reader != OUTPUT and reader not in chosen)
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_no_choice_is_cheaper(seed, share):
    found = noise(seed)
    most = found.total * share
    names = [node.output for node in RESIDUAL.nodes]
    cost = dict(zip(names, _costs(RESIDUAL, ()), strict=True))
    choices = [set(some) for count in range(5) for some in combinations(names, count)]
    fit = [some for some in choices if left(found, some) <= most * (1 + 1e-9)]
    best = min((sum(cost[name] for name in some) for some in fit), default=None)
    chosen = choose_fine_nodes(RESIDUAL, found, most)
    if best is None:
        assert chosen is None
        return
    assert chosen is not None
    assert sum(cost[name] for name in chosen.nodes) == pytest.approx(best, rel=1e-6)
    assert left(found, set(chosen.nodes)) <= most * (1 + 1e-6)


def test_what_is_float_already_costs_nothing():
    found = Noise({"a": 1.0, "b": 1.0}, {})
    chosen = choose_fine_nodes(RESIDUAL, found, 1.0, already={"b"})
    assert chosen is not None and chosen.nodes == frozenset()


def test_noise_of_all_parts_adds_up():
    graph: Graph = chain()
    array = images()
    model = quantized(graph, array)
    found = measure_noise(model, graph, [[(array,)]])
    everything = frozenset(node.output for node in graph.nodes)
    chosen = choose_fine_nodes(graph, found, found.total * 1e-6, already=model.float_nodes)
    assert chosen is not None and chosen.nodes == everything
    assert found.total > sum(value for key, value in found.activations.items() if key[0] in graph.input_names) > 0


def test_int16_leaves_the_noise_of_weights():
    found = noise(0)
    weights = sum(found.constants.values())
    assert choose_fine_nodes(RESIDUAL, found, weights * 0.99, keeps_weights=True) is None
    inputs = sum(value for key, value in found.activations.items() if key[0] == "x")
    assert choose_fine_nodes(RESIDUAL, found, (weights + inputs) * 1.001, keeps_weights=True) is not None
    assert choose_fine_nodes(RESIDUAL, found, weights + inputs * 0.99, keeps_weights=True) is None
    assert choose_fine_nodes(RESIDUAL, found, 1e-6) is not None
    assert choose_fine_nodes(RESIDUAL, found, 1e-6, impossible={"t"}) is None


@pytest.mark.parametrize("seed", range(6))
def test_the_weights_that_suffer_least_take_4_bits(seed):
    random = np.random.default_rng(seed)
    names = list("abcdef")
    sizes = {name: int(random.integers(1, 50)) * 8 for name in names}
    cost = {name: (0.0, float(random.exponential())) for name in names}
    most = int(sum(sizes.values()) * 0.7)
    chosen = choose_coarse_weights(cost, sizes, most)
    fit = [
        some
        for count in range(7)
        for some in combinations(names, count)
        if sum(sizes.values()) - sum(sizes[name] // 2 for name in some) <= most
    ]
    assert chosen is not None and tuple(sorted(chosen.nodes)) in fit
    assert chosen.noise == pytest.approx(min(sum(cost[name][1] for name in some) for some in fit), abs=1e-9)


def test_a_budget_that_cannot_be_met_is_none():
    assert choose_coarse_weights({"a": (0.0, 1.0)}, {"a": 100}, 49) is None
    kept = choose_coarse_weights({"a": (0.0, 1.0)}, {"a": 100}, 100)
    assert kept is not None and not kept.nodes
