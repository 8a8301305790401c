"""The order of channels that become pixels: what it does to weights, and to what compression knows of them."""

from __future__ import annotations

import numpy as np

from tests.graph.op_cases import case_inputs
from toolchain.engine.run import predict
from toolchain.graph import Codebook, Op, Structure, fold, fold_structure, parse_graph
from toolchain.graph.blocks import pixel_order

SHUFFLED = """
input x: float32[1,2,3,3]
constant w: float32[8,2,3,3]
constant b: float32[8]
y = conv2d(x, w, b) padding=(1,1,1,1)
t = tanh(y)
z = depth_to_space(t) block=2
output z
"""
UNSHUFFLED = """
input x: float32[1,2,4,4]
constant w: float32[3,8,1,1]
y = space_to_depth(x) block=2
z = conv2d(y, w)
output z
"""


def graph_of(text: str):
    random = np.random.default_rng(3)
    shapes = {"w": (8, 2, 3, 3), "b": (8,)} if "b:" in text else {"w": (3, 8, 1, 1)}
    return parse_graph(text, {n: random.integers(-4, 5, s).astype(np.float32) for n, s in shapes.items()})


def test_the_order_is_that_of_the_pixels():
    # channels (c, i, j) of 2 images in blocks of 2
    assert pixel_order(2, 2).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_weights_are_reordered_and_nothing_else_changes():
    for text, axis in ((SHUFFLED, 0), (UNSHUFFLED, 1)):
        graph = graph_of(text)
        folded = fold(graph)
        inputs = case_inputs(graph)
        np.testing.assert_allclose(predict(folded, [inputs])[0], predict(graph, [inputs])[0], rtol=0, atol=1e-5)
        wanted = graph.constants["w"].take(pixel_order(2, 2), axis)
        np.testing.assert_array_equal(folded.constants["w"], wanted)
        assert not any(node.attributes.get("channels_first") for node in folded.nodes)
        assert fold(folded).nodes == folded.nodes


def test_masks_and_codebooks_follow_the_weights():
    for text, axis in ((SHUFFLED, 0), (UNSHUFFLED, 1)):
        graph = graph_of(text)
        weight = graph.constants["w"]
        values, indices = np.unique(weight, return_inverse=True)
        book = Codebook(values, indices.reshape(weight.shape).astype(np.uint8))
        before = Structure(masks={"w": weight != 0}, codebooks={"w": book})
        folded = fold(graph)
        after = fold_structure(before, graph, folded)
        assert after.violations(folded.constants) == []
        np.testing.assert_array_equal(after.codebooks["w"].decode(), folded.constants["w"])
        np.testing.assert_array_equal(after.masks["w"], (weight != 0).take(pixel_order(2, 2), axis))


def test_a_weight_that_two_convolutions_read_keeps_its_order():
    text = SHUFFLED.replace("output z", "") + "u = conv2d(x, w)\noutput z, u"
    graph = graph_of(text)
    (shuffle,) = (node for node in fold(graph).nodes if node.op is Op.DEPTH_TO_SPACE)
    assert shuffle["channels_first"] is True
