"""What a graph refuses, and what it derives: types, sweep, subgraphs, the arrays it holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from toolchain.errors import UnsupportedError
from toolchain.graph import DType, Graph, Node, Op, Source, TensorType, Value, parse_graph, subgraph, sweep
from toolchain.graph.graph import unique_name

X = Value("x", TensorType(DType.FLOAT32, (1, 4)))


def relu(source: str, result: str) -> Node:
    return Node(Op.RELU, result, (source,), (result,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((X,), ("y",), (relu("nothing", "y"),), {}), r"y \(relu\) uses 'nothing' before it is defined"),
        (((X,), ("y",), (relu("z", "y"), relu("x", "z")), {}), "uses 'z' before it is defined"),
        (((X,), ("y",), (relu("x", "y"), relu("x", "y")), {}), "'y' is defined twice"),
        (((X,), ("x",), (relu("x", "x"),), {}), "'x' is defined twice"),
        (((X,), ("y",), (), {}), "output 'y' is never defined"),
        (((X,), ("x",), (), {"x": np.zeros(1)}), "share a name"),
        (((X, X), ("x",), (), {}), "share a name"),
    ],
)
def test_a_graph_that_cannot_be_evaluated_cannot_be_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        Graph(*arguments)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        (Op.ADD, ("a",), {}, "takes"),
        (Op.RELU, ("a", "b"), {}, "takes"),
        (Op.CONCAT, (), {"axis": 0}, "takes"),
        (Op.CONV2D, ("a",), {}, "takes"),
        (Op.CONV2D, ("a", "w", "b", "c"), {}, "takes"),
        (Op.SOFTMAX, ("a",), {}, "needs"),
        (Op.RELU, ("a",), {"slope": 1}, "has no"),
    ],
)
def test_a_node_must_fit_its_signature(op, inputs, attributes, message):
    with pytest.raises(ValueError, match=message):
        Node(op, "n", inputs, ("n",), attributes)


def test_attributes_are_complete_and_read_only():
    node = Node(Op.CONV2D, "c", ("x", "w"), ("c",))
    assert node["stride"] == (1, 1)
    assert node.with_attributes(stride=(2, 2))["stride"] == (2, 2)
    with pytest.raises(TypeError):
        node.attributes["stride"] = (3, 3)


def test_constants_are_read_only_contiguous_and_keep_their_shape():
    weights = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    graph = Graph((X,), ("x",), (), {"w": weights, "s": np.float32(3)[...]})
    assert graph.constants["w"].flags.c_contiguous
    assert graph.constants["s"].shape == ()
    np.testing.assert_array_equal(graph.constants["w"], weights)
    with pytest.raises(ValueError, match="read-only"):
        graph.constants["w"][0] = 1
    weights[0] = 1  # the caller's own array stays his


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("y = conv2d(x, w) stride=(2,2) padding=(1,0,1,1) dilation=(2,1)", (2, 6, 3, 3)),
        ("y = max_pool2d(x) kernel_size=(3,3) stride=(2,2) padding=(0,0,1,1)", (2, 4, 3, 3)),
        ("y = mean(x) axes=(1,3)", (2, 7)),
        ("y = mean(x) axes=(1,3) keepdim=True", (2, 1, 7, 1)),
        ("y = permute(x) axes=(0,3,1,2)", (2, 6, 4, 7)),
        ("y = pad(x) amounts=(0,0,1,2,0,0,3,4)", (2, 4, 11, 12)),
        ("y = slice(x) axes=(3,1) starts=(1,0) stops=(6,3) steps=(2,1)", (2, 3, 7, 3)),
        ("y = concat(x, x, x) axis=2", (2, 4, 21, 6)),
        ("y = add(x, c)", (2, 4, 7, 6)),
        ("y = reshape(x) shape=(4,84)", (4, 84)),
    ],
)
def test_types_by_hand(line, shape):
    head = "input x: float32[2,4,7,6]\nconstant w: float32[6,4,3,3]\nconstant c: float32[7,1]\n"
    assert parse_graph(f"{head}{line}\noutput y").types["y"] == TensorType(DType.FLOAT32, shape)


@pytest.mark.parametrize(
    "line",
    [
        "y = conv2d(x, w)",
        "y = conv2d(x, v) dilation=(4,1)",
        "y = depthwise_conv2d(x, w)",
        "y = linear(x, w2)",
        "y = add(x, c)",
        "y = reshape(x) shape=(4,85)",
        "y = concat(x, c) axis=0",
        "y = max_pool2d(x) kernel_size=(8,1)",
    ],
)
def test_shapes_that_clash_name_the_node_and_its_place(line):
    head = "input x: float32[2,4,7,6]\nconstant w: float32[6,5,3,3]\nconstant w2: float32[5,5]\n"
    head += "constant v: float32[6,4,3,3]\nconstant c: float32[5,1]\n"
    graph = parse_graph(f"{head}{line}\noutput y")
    (node,) = graph.nodes
    placed = replace(graph, nodes=(replace(node, name="block.y", source=Source("block", "net.py", 12)),))
    with pytest.raises(UnsupportedError, match=r"block\.y.*do not fit") as found:
        _ = placed.types
    assert "block at net.py:12" in str(found.value)


def test_sweep_drops_what_no_output_depends_on():
    graph = parse_graph(
        "input x: float32[1,4]\ninput unused: float32[2]\n"
        "constant w: float32[3,4]\nconstant v: float32[3,4]\n"
        "a = relu(x)\nb = linear(a, w)\nc = linear(a, v)\nd = relu(c)\noutput b"
    )
    swept = sweep(graph)
    assert [node.output for node in swept.nodes] == ["a", "b"]
    assert list(swept.constants) == ["w"]
    assert swept.input_names == ("x", "unused")


BRANCHY = parse_graph(
    "input x: float32[1,4]\nconstant w: float32[4,4]\n"
    "a = linear(x, w)\nb = relu(a)\nc = tanh(b)\nd = add(b, c)\ne = add(d, a)\noutput e"
)


def test_subgraph_has_the_tensors_it_reads_and_defines():
    part = subgraph(BRANCHY, [n for n in BRANCHY.nodes if n.output in ("b", "c", "d")])
    assert part.input_names == ("a",)
    assert part.outputs == ("d",)
    assert part.types["a"].shape == (1, 4)
    assert not part.constants


def test_subgraph_keeps_a_tensor_that_is_read_inside_and_outside():
    part = subgraph(BRANCHY, [n for n in BRANCHY.nodes if n.output in ("a", "b")])
    assert part.outputs == ("a", "b")


def test_only_consumer_is_none_where_a_tensor_is_read_twice_or_leaves_the_graph():
    assert BRANCHY.only_consumer("b") is None
    assert BRANCHY.only_consumer("e") is None
    assert BRANCHY.only_consumer("d") is BRANCHY.nodes[-1]
    doubled = parse_graph("input x: float32[1]\na = relu(x)\nb = add(a, a)\noutput b")
    assert doubled.only_consumer("a") is doubled.nodes[1]


def test_with_constants_refuses_unknown_names():
    with pytest.raises(KeyError, match="other"):
        BRANCHY.with_constants({"other": np.zeros(1)})


def test_unique_name_takes_the_first_free():
    assert unique_name("a", []) == "a"
    assert unique_name("a", ["a", "a_1", "b"]) == "a_2"
