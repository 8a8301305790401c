"""Multiply-accumulates and activation memory, against figures worked out by hand."""

from __future__ import annotations

import pytest

from tests.graph.op_cases import CASES, case_graph
from toolchain.graph import parse_graph
from toolchain.graph.cost import activations_at_peak, node_costs, peak_activation_bytes, total_macs


@pytest.mark.parametrize(
    ("case", "macs", "parameters"),
    [
        # 2 x 6 x 5 x 4 results, each from 4 x 3 x 3 weights
        ("conv2d", 240 * 36, 216),
        # 2 x 6 x 4 x 5 results
        ("conv2d asymmetric padding", 240 * 36, 216 + 6),
        # 2 x 6 x 7 x 6 results, each from 2 x 2 x 3 weights: a group sees half of the channels
        ("conv2d groups", 504 * 12, 72 + 6),
        ("depthwise_conv2d", 2 * 4 * 7 * 6 * 9, 36 + 4),
        # 2 x 12 x 6 x 3 results, each from 3 x 2 weights
        ("depthwise_conv2d multiplier", 432 * 6, 72 + 12),
        ("linear", 3 * 5 * 8, 45),
        ("linear over rows", 3 * 5 * 5 * 8, 40),
        ("reshape", 0, 0),
        ("max_pool2d", 0, 0),
        ("add", 336, 0),
        ("mean", 336, 0),
    ],
)
def test_macs_by_hand(case, macs, parameters):
    (cost,) = node_costs(case_graph(case))
    assert (cost.macs, cost.parameters) == (macs, parameters)


@pytest.mark.parametrize("case", CASES)
def test_every_op_has_a_cost_that_is_no_less_than_nothing(case):
    assert total_macs(case_graph(case)) >= 0


def test_a_parameter_read_twice_is_counted_once():
    graph = parse_graph("input x: float32[1,4]\nconstant w: float32[4,4]\na = linear(x, w)\nb = linear(a, w)\noutput b")
    assert [cost.parameters for cost in node_costs(graph)] == [16, 0]
    assert total_macs(graph) == 32


BRANCHY = parse_graph(
    "input x: float32[1,100]\nconstant w: float32[50,100]\nconstant v: float32[10,100]\n"
    "a = linear(x, w)\n"  # x 100, a 50
    "b = linear(x, v)\n"  # x, a, b 10: x is freed after it
    "c = relu(a)\n"  # a, b, c 50
    "d = reshape(c) shape=(1,5,10)\n"  # c's memory
    "e = add(d, b)\n"  # b, c, e 50
    "output e"
)


def test_peak_memory_by_hand():
    # x + a + b; the later nodes hold a + b + c = 110 and b + c + e = 110
    assert peak_activation_bytes(BRANCHY) == 160 * 4
    assert peak_activation_bytes(BRANCHY, element_bytes=1) == 160


ROW = "input x: float32[1,2]\nconstant w: float32[8,2]\n"


@pytest.mark.parametrize(
    ("lines", "elements"),
    [
        # a is an output and stays to the end: a 8 + b 8 + c 8
        (ROW + "a = linear(x, w)\nb = relu(a)\nc = tanh(b)\noutput a, c", 24),
        # the same without: two at a time
        (ROW + "a = linear(x, w)\nb = relu(a)\nc = tanh(b)\noutput c", 16),
        # the last of three: y 9 + b 4 + c 36
        (
            "input x: float32[1,4]\ninput y: float32[9,1]\na = relu(x)\nb = tanh(a)\nc = mul(y, b)\noutput c",
            49,
        ),
        # an input that is read late is there from the start: x 4 + y 9 + a 4
        (
            "input x: float32[1,4]\ninput y: float32[1,9]\na = relu(x)\nm = mean(y) axes=(0,1)\noutput m, a",
            17,
        ),
        # a reshape shares its input's memory and keeps it alive: a 6 + c 6 + d 6
        (
            "input x: float32[6]\na = relu(x)\nb = reshape(a) shape=(6,)\nc = relu(a)\nd = add(b, c)\noutput d",
            18,
        ),
        # a graph that only hands on its input
        ("input x: float32[1,6]\noutput x", 6),
    ],
)
def test_what_is_alive_is_counted_and_nothing_else(lines, elements):
    assert peak_activation_bytes(parse_graph(lines), element_bytes=1) == elements


def test_what_is_alive_at_the_peak_is_named_the_largest_first():
    text = """
input x: float32[1,4,8,8]
constant w: float32[8,4,1,1]
constant v: float32[2,8,1,1]
a = conv2d(x, w)
b = conv2d(a, v)
c = relu(b)
output c
"""
    assert activations_at_peak(parse_graph(text), 1) == {"a": 512, "x": 256}
    assert list(activations_at_peak(parse_graph(text))) == ["a", "x"]
