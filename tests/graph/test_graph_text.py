"""The text form and the archive give back the graph they were made of, for every op."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.graph.op_cases import CASES, case_graph, op_of
from toolchain.graph import Codebook, Graph, Node, Op, Source, Structure, format_graph, parse_graph
from toolchain.graph.archive import (
    graph_from_plain,
    graph_to_plain,
    structure_from_arrays,
    structure_to_arrays,
)


def test_every_op_has_a_case():
    assert {op_of(case) for case in CASES} == set(Op)


@pytest.mark.parametrize("case", CASES)
def test_text_reads_back_to_an_equal_graph(case):
    graph = case_graph(case)
    again = parse_graph(format_graph(graph), graph.constants)
    assert again.nodes == graph.nodes
    assert (again.inputs, again.outputs, again.types) == (graph.inputs, graph.outputs, graph.types)
    assert format_graph(again) == format_graph(graph)


@pytest.mark.parametrize("case", CASES)
def test_archive_reads_back_to_an_equal_graph_through_json(case):
    graph = case_graph(case)
    # safetensors gives arrays in an order of its own
    shuffled = dict(sorted(graph.constants.items(), reverse=True))
    again = graph_from_plain(json.loads(json.dumps(graph_to_plain(graph))), shuffled)
    assert again.nodes == graph.nodes
    assert format_graph(again) == format_graph(graph)


def test_archive_keeps_names_and_sources():
    source = Source("block.conv", "net.py", 12)
    plain = case_graph("relu")
    node = Node(Op.RELU, "block.relu", ("x",), ("y",), {}, source)
    graph = Graph(plain.inputs, ("y",), (node,), {})
    again = graph_from_plain(json.loads(json.dumps(graph_to_plain(graph))), {})
    assert again.nodes == (node,)
    assert again.nodes[0].source == source


def test_text_shows_only_attributes_that_are_not_at_their_default():
    graph = case_graph("conv2d asymmetric padding")
    line = "y = conv2d(x, w, b) stride=(2,1) padding=(0,1,2,0) activation=relu  -> float32[2,6,4,5]"
    assert line in format_graph(graph, sources=False).splitlines()


def test_seeded_constants_are_the_same_on_every_reading():
    first, second = (parse_graph(CASES["conv2d"]) for _ in range(2))
    np.testing.assert_array_equal(first.constants["w"], second.constants["w"])
    assert np.any(parse_graph(CASES["conv2d"], seed=1).constants["w"] != first.constants["w"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("input x: float32(3)\noutput x", "not a tensor type"), ("y <- relu(x)\noutput y", "not a node")],
)
def test_what_is_no_graph_is_quoted(text, message):
    with pytest.raises(ValueError, match=message):
        parse_graph(text)


def test_structure_reads_back():
    book = Codebook(np.array([-1, 0, 2], np.float32), np.array([[0, 1], [2, 2]], np.uint8))
    structure = Structure({"a.mask/x": np.array([True, False])}, {"codebook/w": book})
    again = structure_from_arrays(structure_to_arrays(structure))
    np.testing.assert_array_equal(again.masks["a.mask/x"], [True, False])
    np.testing.assert_array_equal(again.codebooks["codebook/w"].decode(), [[-1, 0], [2, 2]])
    assert (list(again.masks), list(again.codebooks)) == (["a.mask/x"], ["codebook/w"])
