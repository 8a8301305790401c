"""Two permutes around a reshape are one: the same values, one permute fewer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.engine.run import predict
from toolchain.graph import Op, fold, mixes_samples, parse_graph
from toolchain.graph.moves import common_factors, merge_permutes

PATCHES = """
input x: float32[1,6,8,4]
a = reshape(x) shape=(24,2,2,2)
b = permute(a) axes=(0,2,1,3)
c = reshape(b) shape=(1,6,8,4)
y = permute(c) axes=(0,3,2,1)
output y
"""


def permutes(graph) -> int:
    return sum(node.op is Op.PERMUTE for node in graph.nodes)


def check(text: str) -> None:
    graph = parse_graph(text)
    merged = merge_permutes(graph)
    inputs = np.arange(graph.inputs[0].type.elements, dtype=np.float32).reshape(graph.inputs[0].type.shape)
    np.testing.assert_array_equal(predict(merged, [(inputs,)])[0], predict(graph, [(inputs,)])[0])
    assert permutes(merged) == permutes(graph) - 1


def test_patches_of_an_image():
    check(PATCHES)


def test_the_batch_stays_an_axis_of_its_own():
    text = """
    input x: float32[1,4,6]
    a = permute(x) axes=(0,2,1)
    b = reshape(a) shape=(1,3,2,4)
    y = permute(b) axes=(0,2,1,3)
    output y
    """
    check(text)
    merged = merge_permutes(parse_graph(text))
    assert mixes_samples(merged) is None
    assert predict(merged, [(np.zeros((5, 4, 6), np.float32),)])[0].shape == (5, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (PATCHES.replace("output y", "output y, b"), "the first permute is an output"),
        (PATCHES.replace("shape=(1,6,8,4)", "shape=(1,3,8,8)").replace("24,2,2,2", "2,32,3,1"), "no common factors"),
    ],
)
def test_what_stays(text, why):
    graph = parse_graph(text)
    assert merge_permutes(graph) is graph, why


def test_three_in_a_row_become_one():
    text = """
    input x: float32[4,6,10]
    a = permute(x) axes=(2,0,1)
    b = reshape(a) shape=(10,2,2,6)
    c = permute(b) axes=(1,0,3,2)
    d = reshape(c) shape=(20,12)
    y = permute(d) axes=(1,0)
    output y
    """
    graph = parse_graph(text)
    merged = fold(graph)
    x = np.arange(240, dtype=np.float32).reshape(4, 6, 10)
    np.testing.assert_array_equal(predict(merged, [(x,)])[0], predict(graph, [(x,)])[0])
    assert permutes(merged) == 1


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.data())
def test_any_two_permutes_around_a_reshape_that_have_atoms(atoms, data):
    def grouped() -> list[int]:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(atoms) - 1))))
        bounds = [0, *cuts, len(atoms)]
        return [int(np.prod(atoms[a:b])) for a, b in pairwise(bounds)]

    before, behind = grouped(), grouped()
    one, two = (data.draw(st.permutations(range(len(shape)))) for shape in (before, behind))
    given_shape = [0] * len(before)
    for axis, source in enumerate(one):
        given_shape[source] = before[axis]

    def text(values) -> str:
        return "(" + "".join(f"{value}," for value in values) + ")"

    graph = parse_graph(
        f"input x: float32[{','.join(map(str, given_shape))}]\na = permute(x) axes={text(one)}\n"
        f"b = reshape(a) shape={text(behind)}\ny = permute(b) axes={text(two)}\noutput y"
    )
    merged = merge_permutes(graph)
    x = np.arange(np.prod(given_shape), dtype=np.float32).reshape(given_shape)
    np.testing.assert_array_equal(predict(merged, [(x,)])[0], predict(graph, [(x,)])[0])


def test_common_factors():
    assert common_factors((6, 4), (2, 12)) == (2, 3, 4)
    assert common_factors((1, 6), (6, 1), keep_first=False) == (6,)
    assert common_factors((6, 4), (4, 6)) is None
