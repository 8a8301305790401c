"""Folding: what becomes of each pattern, what must be left, and that the function stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given

from tests.graph.op_cases import case_inputs
from tests.graph.random_graphs import graphs
from toolchain.engine.run import run
from toolchain.graph import Graph, Op, fold, parse_graph

IMAGE = "input x: float32[2,4,6,6]\n"
CONV = "constant w: float32[6,4,3,3]\nconstant b: float32[6]\n"


def norm(name: str, source: str, channels: int) -> str:
    vectors = [f"{name}.{leaf}" for leaf in ("weight", "bias", "mean", "variance")]
    constants = "".join(f"constant {vector}: float32[{channels}]\n" for vector in vectors)
    return f"{constants}{name} = batch_norm({source}, {', '.join(vectors)})\n"


def parse(text: str) -> Graph:
    graph = parse_graph(text)
    positive = {n: np.abs(a) + np.float32(0.1) for n, a in graph.constants.items() if n.endswith("variance")}
    return graph.with_constants(positive)


def outputs(graph: Graph, batch: int | None = None) -> list[np.ndarray]:
    return [o.numpy() for o in run(graph, [torch.from_numpy(a) for a in case_inputs(graph, batch)])]


def assert_same_function(before: Graph, after: Graph, tolerance: float = 1e-5) -> None:
    for left, right in zip(outputs(before), outputs(after), strict=True):
        np.testing.assert_allclose(right, left, rtol=0, atol=tolerance * max(1.0, float(np.abs(left).max())))


def folded(text: str) -> Graph:
    """The folded graph of `text`, once it has been seen to compute the same."""
    before = parse(text)
    after = fold(before)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    assert_same_function(before, after)
    assert fold(after).nodes == after.nodes
    return after


def ops(graph: Graph) -> list[Op]:
    return [node.op for node in graph.nodes]


# ---- batch norm --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (IMAGE + CONV + "c = conv2d(x, w, b)\n", 6),
        (IMAGE + CONV + "c = conv2d(x, w)\n", 6),
        (IMAGE + "constant w: float32[6,2,3,3]\nc = conv2d(x, w) groups=2\n", 6),
        (IMAGE + "constant w: float32[8,1,3,3]\nconstant b: float32[8]\nc = depthwise_conv2d(x, w, b)\n", 8),
        ("input x: float32[3,4]\nconstant w: float32[5,4]\nc = linear(x, w)\n", 5),
    ],
    ids=["conv", "conv without bias", "grouped", "depthwise", "linear"],
)
def test_batch_norm_folds_into_the_layer_before(layer, channels):
    after = folded(layer + norm("n", "c", channels) + "output n")
    (node,) = after.nodes
    assert (node.output, node.name) == ("n", "c")
    assert len(node.inputs) == 3


def test_a_new_bias_stands_beside_its_weight_and_takes_no_name_that_is_taken():
    text = IMAGE + "constant s.weight: float32[4,4,1,1]\nconstant s.bias: float32[4,1,1]\n"
    text += "c = conv2d(x, s.weight)\n" + norm("n", "c", 4) + "y = add(n, s.bias)\noutput y"
    assert folded(text).nodes[0].inputs == ("x", "s.weight", "s.bias_1")


@pytest.mark.parametrize("join", ["add(x, x)", "concat(x, x) axis=1"])
def test_batch_norm_after_a_join_becomes_a_depthwise_convolution(join):
    channels = 4 if join.startswith("add") else 8
    after = folded(IMAGE + f"j = {join}\n" + norm("n", "j", channels) + "output n")
    assert after.nodes[1].op is Op.DEPTHWISE_CONV2D
    assert after.types["n.weight"].shape == (channels, 1, 1, 1)


@pytest.mark.parametrize(
    "text",
    [
        IMAGE + CONV + "c = conv2d(x, w, b)\n" + norm("n", "c", 6) + "y = add(n, c)\noutput y",
        IMAGE + CONV + "c = conv2d(x, w, b)\n" + norm("n", "c", 6) + "output n, c",
        IMAGE + CONV + "c = conv2d(x, w, b) activation=relu\n" + norm("n", "c", 6) + "output n",
        IMAGE + CONV + "c = conv2d(x, w, b)\nd = conv2d(x, w)\n" + norm("n", "c", 6) + "y = add(n, d)\noutput y",
    ],
    ids=["read twice", "an output", "activation between", "weight shared"],
)
def test_batch_norm_is_not_folded_into_a_layer_that_others_see(text):
    after = folded(text)
    assert Op.DEPTHWISE_CONV2D in ops(after)
    np.testing.assert_array_equal(after.constants["w"], parse(text).constants["w"])


def test_two_batch_norms_on_one_tensor_each_keep_their_own_values():
    text = IMAGE + "a = relu(x)\n" + norm("m", "a", 4) + norm("n", "a", 4) + "y = mul(m, n)\noutput y"
    assert ops(folded(text)).count(Op.DEPTHWISE_CONV2D) == 2


def test_one_batch_norm_applied_twice():
    """Both see the same four vectors; the second is folded away, the first is left."""
    text = IMAGE + norm("n", "x", 4) + "constant w: float32[4,4,1,1]\nc = conv2d(n, w)\n"
    text += "m = batch_norm(c, n.weight, n.bias, n.mean, n.variance)\noutput m"
    assert ops(folded(text)) == [Op.DEPTHWISE_CONV2D, Op.CONV2D]


def test_a_scale_that_something_else_reads_keeps_its_value():
    text = IMAGE + norm("n", "x", 4) + "m = mean(n) axes=(2,3)\ny = mul(m, n.weight)\noutput y"
    assert Op.DEPTHWISE_CONV2D in ops(folded(text))


@pytest.mark.parametrize("shape", ["3,4", "3,4,5", "3,4,2,5,2"])
def test_a_batch_norm_after_an_activation_is_one_of_an_image(shape):
    text = f"input x: float32[{shape}]\na = tanh(x)\n" + norm("n", "a", 4) + "output n"
    assert ops(folded(text)) == [Op.TANH, Op.RESHAPE, Op.DEPTHWISE_CONV2D, Op.RESHAPE]


def test_a_linear_layer_over_rows_is_no_place_for_a_batch_norm_of_axis_1():
    text = "input x: float32[2,5,4]\nconstant w: float32[5,4]\nc = linear(x, w)\n" + norm("n", "c", 5) + "output n"
    assert ops(folded(text)) == [Op.LINEAR, Op.RESHAPE, Op.DEPTHWISE_CONV2D, Op.RESHAPE]


def test_a_batch_norm_folds_through_what_does_nothing():
    text = IMAGE + CONV + "c = conv2d(x, w)\nr = reshape(c) shape=(2,6,4,4)\n" + norm("n", "r", 6) + "output n"
    assert ops(folded(text)) == [Op.CONV2D]


# ---- pads --------------------------------------------------------------------------------------------------

PAD = IMAGE + CONV + "p = pad(x) amounts=(0,0,1,0,0,0,2,1)\n"


def test_a_pad_moves_into_the_padding_of_all_convolutions_that_read_it():
    text = PAD + "c = conv2d(p, w, b) padding=(1,1,1,1)\nd = conv2d(p, w)\n"
    text += "e = slice(c) axes=(2,3) starts=(1,1) stops=(8,6) steps=(1,1)\ny = add(e, d)\noutput y"
    after = folded(text)
    assert Op.PAD not in ops(after)
    assert [n["padding"] for n in after.nodes if n.op is Op.CONV2D] == [(2, 1, 3, 2), (1, 0, 2, 1)]


def test_pads_in_a_row_all_move():
    after = folded(PAD + "q = pad(p) amounts=(0,0,0,3,0,0,0,0)\nc = conv2d(q, w)\noutput c")
    assert [(n.op, n["padding"]) for n in after.nodes] == [(Op.CONV2D, (1, 3, 2, 1))]


@pytest.mark.parametrize(
    "text",
    [
        PAD + "c = conv2d(p, w)\nm = mean(p) axes=(2,3)\noutput c, m",
        PAD + "c = conv2d(p, w)\noutput c, p",
        PAD + "c = max_pool2d(p) kernel_size=(2,2)\noutput c",
        PAD + "c = avg_pool2d(p) kernel_size=(2,2)\noutput c",
        PAD.replace("2,1)", "2,1) value=1.0") + "c = conv2d(p, w)\noutput c",
        IMAGE + "constant w: float32[6,5,3,3]\np = pad(x) amounts=(0,1,0,0,0,0,0,0)\nc = conv2d(p, w)\noutput c",
    ],
    ids=["read by a mean", "an output", "max pool", "average pool", "of ones", "of channels"],
)
def test_a_pad_stays_where_something_else_sees_it(text):
    assert Op.PAD in ops(folded(text))


# ---- activations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("layer", ["conv2d(x, w, b)", "add(x, x)", "sub(x, k)", "mul(x, x)"])
def test_an_activation_is_fused_and_its_name_stays(layer, activation):
    text = IMAGE + CONV + f"constant k: float32[4,1,1]\nc = {layer}\na = {activation}(c)\noutput a"
    (node,) = folded(text).nodes
    assert (node.output, node.name, node["activation"]) == ("a", "c", activation)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (IMAGE + CONV + "c = conv2d(x, w)\na = relu(c)\noutput a, c", 2),
        (IMAGE + CONV + "c = conv2d(x, w)\na = relu(c)\ny = add(a, c)\noutput y", 3),
        (IMAGE + CONV + "c = conv2d(x, w)\na = tanh(c)\noutput a", 2),
        (IMAGE + CONV + "c = conv2d(x, w)\na = relu(c)\nd = relu6(a)\noutput d", 2),
        (IMAGE + "c = max_pool2d(x) kernel_size=(2,2)\na = relu(c)\noutput a", 2),
    ],
    ids=["pre-activation is an output", "pre-activation read twice", "tanh", "two in a row", "after a pool"],
)
def test_an_activation_is_not_fused(text, kept):
    assert len(folded(text).nodes) == kept


def test_batch_norm_and_activation_both_end_in_the_convolution():
    text = IMAGE + CONV + "p = pad(x) amounts=(0,0,1,1,0,0,1,1)\nc = conv2d(p, w, b)\n"
    text += norm("n", "c", 6) + "a = relu6(n)\noutput a"
    (node,) = folded(text).nodes
    assert (node["activation"], node["padding"], node.output) == ("relu6", (1, 1, 1, 1), "a")


# ---- what does nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "i = reshape(a) shape=(2,4,6,6)",
        "i = permute(a) axes=(0,1,2,3)",
        "i = pad(a) amounts=(0,0,0,0,0,0,0,0)",
        "i = slice(a) axes=(1,) starts=(0,) stops=(4,) steps=(1,)",
        "r = reshape(a) shape=(2,144)\ni = reshape(r) shape=(2,4,6,6)",
    ],
)
def test_what_leaves_its_input_as_it_was_is_dropped(line):
    assert ops(folded(IMAGE + f"a = tanh(x)\n{line}\ny = sigmoid(i)\noutput y")) == [Op.TANH, Op.SIGMOID]


def test_an_identity_that_is_an_output_keeps_its_name():
    assert folded(IMAGE + "a = tanh(x)\ni = reshape(a) shape=(2,4,6,6)\noutput i").outputs == ("i",)


@pytest.mark.parametrize(
    "line",
    [
        "i = permute(a) axes=(0,1,3,2)",
        "i = slice(a) axes=(1,) starts=(0,) stops=(3,) steps=(1,)",
        "i = slice(a) axes=(3,) starts=(0,) stops=(6,) steps=(2,)",
        "i = reshape(a) shape=(2,6,4,6)",
    ],
)
def test_what_moves_something_stays(line):
    assert len(folded(IMAGE + f"a = tanh(x)\n{line}\ny = sigmoid(i)\noutput y").nodes) == 3


def test_an_activation_behind_an_identity_is_fused_too():
    text = IMAGE + CONV + "c = conv2d(x, w)\ni = permute(c) axes=(0,1,2,3)\na = relu(i)\noutput a"
    assert ops(folded(text)) == [Op.CONV2D]


# ---- everything --------------------------------------------------------------------------------------------


@given(graphs())
def test_the_function_stays_and_folding_again_changes_nothing(graph):
    after = fold(graph)
    assert_same_function(graph, after)
    assert Op.BATCH_NORM not in ops(after)
    again = fold(after)
    assert again.nodes == after.nodes
    assert all(np.array_equal(again.constants[name], array) for name, array in after.constants.items())


def test_consecutive_permutes_are_one():
    graph = fold(parse("input x: float32[2,4,6]\na = permute(x) axes=(1,2,0)\ny = permute(a) axes=(0,2,1)\noutput y"))
    assert [(node.op, node["axes"]) for node in graph.nodes] == [(Op.PERMUTE, (1, 0, 2))]


def test_a_permute_and_its_inverse_are_none():
    text = "input x: float32[2,4,6]\na = permute(x) axes=(1,2,0)\nb = permute(a) axes=(2,0,1)\ny = relu(b)\noutput y"
    assert [node.op for node in fold(parse(text)).nodes] == [Op.RELU]


def test_an_expansion_before_an_op_that_broadcasts_is_dropped():
    text = "input x: float32[2,4,6]\ninput z: float32[2,1,6]\ne = expand(z) shape=(2,4,6)\n"
    assert [node.op for node in fold(parse(text + "y = add(x, e)\noutput y")).nodes] == [Op.ADD]
    # not where nothing else has the size
    both = fold(parse(text + "y = add(e, e)\noutput y, x"))
    assert [node.op for node in both.nodes] == [Op.EXPAND, Op.ADD]


@pytest.mark.parametrize(("places", "op"), [((1, 3, 5), Op.SLICE), ((1, 2), Op.SLICE), ((3, 1), Op.GATHER)])
def test_a_gather_of_even_places_is_a_slice(places, op):
    text = f"input x: float32[2,6]\nconstant i: int32[{len(places)}]\ny = gather(x, i) axis=1\noutput y"
    graph = parse_graph(text, {"i": np.array(places, np.int32)})
    folded = fold(graph)
    assert [node.op for node in folded.nodes] == [op]
    x = torch.arange(12.0).reshape(2, 6)
    assert torch.equal(run(folded, [x])[0], run(graph, [x])[0])
