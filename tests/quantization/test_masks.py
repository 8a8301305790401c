"""Ranges of masked tensors: what a mask may cost, and where it must be left alone."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain.graph import Graph, parse_graph
from toolchain.quantization.masks import DEPTH, limit_masks

INPUTS = "input x: float32[1,4]\ninput m: float32[1,4]\n"
CONSTANT = "constant c: float32[1,4]\n"
SOFTMAX = "y = softmax(a) axis=1\noutput y"


def limited(text: str, c=(0.0, 0.0, 0.0, -1e9), **ranges: tuple[float, float]) -> dict[str, tuple[float, float]]:
    graph: Graph = parse_graph(text, {"c": np.array([c], np.float32)} if "constant c" in text else {})
    return limit_masks(graph, {name: ranges.get(name, (-1.0, 1.0)) for name in graph.activations})


def test_an_added_constant():
    found = limited(INPUTS + CONSTANT + "a = add(x, c)\n" + SOFTMAX, x=(-2.0, 5.0), a=(-1e9, 5.0))
    assert found["a"] == (-2.0 - DEPTH, 5.0)
    # with the highest x it still saturates
    assert found["c"][0] + 5.0 == found["a"][0]
    assert found["x"] == (-2.0, 5.0)


def test_a_bias_beside_the_mask_is_kept():
    text = INPUTS + CONSTANT + "a = add(x, c)\n" + SOFTMAX
    found = limited(text, c=(-30.0, -15.0, 0.0, -1e9), x=(-2.0, 5.0), a=(-1e9, 5.0))
    assert found["a"] == (-32.0 - DEPTH, 5.0)


def test_a_bias_without_a_gap_is_no_mask():
    text = INPUTS + CONSTANT + "a = add(x, c)\n" + SOFTMAX
    found = limited(text, c=(-60.0, -40.0, -20.0, 0.0), x=(-2.0, 5.0), a=(-62.0, 5.0))
    assert found["a"] == (-62.0, 5.0) and "c" not in found


def test_a_computed_mask_is_limited_up_to_the_constant_it_is_made_with():
    text = INPUTS + "constant c: float32[]\nk = mul(m, c)\na = add(x, k)\n" + SOFTMAX
    graph = parse_graph(text, {"c": np.array(-1e9, np.float32)})
    given = {"x": (-2.0, 5.0), "m": (0.0, 1.0), "k": (-1e9, 0.0), "a": (-1e9, 5.0), "y": (0.0, 1.0)}
    found = limit_masks(graph, given)
    assert found["a"] == (-2.0 - DEPTH, 5.0)
    assert found["k"] == (-7.0 - DEPTH, 0.0)
    # the smallest step of m is a whole mask
    assert found["c"][0] / 256 <= found["k"][0]


@pytest.mark.parametrize("rest", ["y = neg(a)\noutput y", SOFTMAX + ", a"])
def test_where_others_read_the_result_nothing_is_limited(rest):
    found = limited(INPUTS + CONSTANT + "a = add(x, c)\n" + rest, a=(-1e9, 1.0))
    assert found["a"] == (-1e9, 1.0) and "c" not in found


def test_a_scale_behind_the_mask_makes_it_deeper():
    text = INPUTS + CONSTANT + "constant s: float32[]\nk = add(x, c)\na = mul(k, s)\n" + SOFTMAX
    graph = parse_graph(text, {"c": np.array([[0, 0, 0, -1e9]], np.float32), "s": np.array(0.5, np.float32)})
    given = {"x": (-2.0, 5.0), "m": (0.0, 1.0), "k": (-1e9, 5.0), "a": (-5e8, 2.5), "y": (0.0, 1.0)}
    found = limit_masks(graph, given)
    assert found["k"] == (-2.0 - 2 * DEPTH, 5.0)
    assert found["a"] == (-1.0 - DEPTH, 2.5)
