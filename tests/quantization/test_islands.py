"""Which nodes compute in float, and which tensors have parameters all the same."""

from __future__ import annotations

from toolchain.graph import Graph, parse_graph
from toolchain.quantization.islands import find_float_nodes, quantized_activations

INPUT = "input x: float32[1,4]\n"


def graph(*lines: str, output: str) -> Graph:
    return parse_graph(INPUT + "\n".join(lines) + f"\noutput {output}")


def test_a_mover_between_float_ops_stays_in_the_island():
    found = graph("a = sin(x)", "b = reshape(a) shape=(2,2)", "y = cos(b)", output="y")
    assert list(find_float_nodes(found)) == ["a", "y", "b"]
    # nothing of it touches an integer op, not even the input
    assert quantized_activations(found, find_float_nodes(found)) == ()


def test_chains_of_ops_with_integer_kernels_between_float_ops_stay_in_the_island():
    found = graph("a = sin(x)", "b = add(a, a)", "c = relu(b)", "d = mul(c, b)", "y = cos(d)", output="y")
    assert set(find_float_nodes(found)) == {"a", "b", "c", "d", "y"}


def test_an_integer_reader_gives_a_float_result_parameters():
    found = graph("a = sin(x)", "b = relu(a)", "y = cos(a)", output="b, y")
    assert set(find_float_nodes(found)) == {"a", "y"}
    assert quantized_activations(found, find_float_nodes(found)) == ("a", "b")


def test_indices_and_booleans_have_neither():
    found = graph("i = argmax(x) axis=1", "c = equal(i, i)", "y = relu(x)", output="i, c, y")
    assert find_float_nodes(found) == {}
    assert quantized_activations(found, {}) == ("x", "y")


def test_a_cast_between_reals_and_integers_is_a_float_node():
    found = graph("i = argmax(x) axis=1", "f = cast(i) dtype=float32", "y = relu(f)", output="y")
    assert set(find_float_nodes(found)) == {"f"}
    assert quantized_activations(found, find_float_nodes(found)) == ("x", "f", "y")


def test_what_moves_an_input_to_float_nodes_alone_moves_it_unrounded():
    found = graph("a = reshape(x) shape=(2,2)", "y = cos(a)", output="y")
    assert set(find_float_nodes(found)) == {"a", "y"}
    assert quantized_activations(found, find_float_nodes(found)) == ()
    # an integer node beside it, or arithmetic on the way, keeps the input in integers
    beside = graph("a = reshape(x) shape=(2,2)", "y = cos(a)", "b = relu(x)", output="y, b")
    assert set(find_float_nodes(beside)) == {"y"}
    computes = graph("a = relu(x)", "y = cos(a)", output="y")
    assert set(find_float_nodes(computes)) == {"y"}
