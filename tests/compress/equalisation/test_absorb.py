import numpy as np
import pytest
from compress.channel_networks import images
from compress.ranges import channel_ranges, difference

from toolchain.compress.equalisation.absorb import absorb_high_biases
from toolchain.graph import Graph, parse_graph

NETWORK = """
    input x: float32[2,3,6,6]
    constant a.weight: float32[4,3,3,3]
    constant a.bias: float32[4]
    constant b.weight: float32[5,{inputs},{kernel}]
    a = conv2d(x, a.weight, a.bias) activation={activation}
    {middle}
    output b"""

POINTWISE = NETWORK.format(inputs=4, kernel="1,1", activation="{activation}", middle="b = conv2d(a, b.weight)")


def with_high_biases(graph: Graph, bias: float = 3.0, weight: float = 0.05) -> Graph:
    biases = np.float32([bias, 2 * bias, 0.0, -bias])
    return graph.with_constants({"a.weight": graph.constants["a.weight"] * np.float32(weight), "a.bias": biases})


@pytest.mark.parametrize(
    ("inputs", "kernel", "middle"),
    [
        (4, "1,1", "b = conv2d(a, b.weight)"),
        (4, "2,2", "p = max_pool2d(a) kernel_size=(2,2)\n b = conv2d(p, b.weight)"),
        (4, "1,1", "q = avg_pool2d(a) kernel_size=(2,2)\n b = conv2d(q, b.weight)"),
        (
            7,
            "1,1",
            "s = slice(x) axes=(2,3) starts=(0,0) stops=(4,4) steps=(1,1)\n"
            " j = concat(s, a) axis=1\n b = conv2d(j, b.weight)",
        ),
        (1, "2,2", "b = depthwise_conv2d(a, b.weight)"),
    ],
)
def test_what_is_always_positive_moves_into_the_next_bias(inputs: int, kernel: str, middle: str) -> None:
    text = NETWORK.format(inputs=inputs, kernel=kernel, activation="relu", middle=middle)
    text = text.replace("b.weight: float32[5,1", "b.weight: float32[4,1")
    graph = with_high_biases(parse_graph(text))
    x = images(2, (2, 3, 6, 6))
    ranges = channel_ranges(graph, (x,))
    absorbed, plan = absorb_high_biases(graph, ranges)
    assert difference(graph, absorbed, x) < 1e-5
    (tensor,) = plan.tensors
    assert tensor.shifted == 2
    assert channel_ranges(absorbed, (x,))["a"][1].max() == pytest.approx(tensor.range_after, rel=1e-4)
    assert tensor.range_after < 0.7 * tensor.range_before
    assert "a " in str(plan)


def test_flatten_and_mean_are_followed_to_a_linear_layer() -> None:
    graph = with_high_biases(
        parse_graph("""
        input x: float32[2,3,6,6]
        constant a.weight: float32[4,3,3,3]
        constant a.bias: float32[4]
        constant l.weight: float32[5,64]
        constant l.bias: float32[5]
        constant m.weight: float32[5,4]
        a = conv2d(x, a.weight, a.bias)
        r = relu(a)
        f = reshape(r) shape=(2,64)
        l = linear(f, l.weight, l.bias)
        h = mean(r) axes=(2,3)
        m = linear(h, m.weight, l.bias)
        s = add(l, m)
        output s""")
    )
    x = images(2, (2, 3, 6, 6))
    absorbed, plan = absorb_high_biases(graph, channel_ranges(graph, (x,)))
    assert [tensor.name for tensor in plan.tensors] == ["r"]
    assert difference(graph, absorbed, x) < 1e-5


@pytest.mark.parametrize(
    ("middle", "why"),
    [
        ("b = conv2d(a, b.weight) padding=(1,1,1,1)", "pads it with zeros"),
        ("b = sigmoid(a)", "reads it"),
        ("b = conv2d(a, b.weight)\n output a", "output"),
    ],
)
def test_what_cannot_take_a_shift_in_is_told(middle: str, why: str) -> None:
    text = NETWORK.format(inputs=4, kernel="1,1", activation="relu", middle=middle)
    if "output a" in middle:
        text = text.replace(" output a", "").replace("output b", "output b, a")
    graph = with_high_biases(parse_graph(text))
    absorbed, plan = absorb_high_biases(graph, channel_ranges(graph, (images(2, (2, 3, 6, 6)),)))
    assert absorbed is graph
    assert why in plan.kept["a"]
    assert why in str(plan)


def test_relu6_is_left_alone_near_its_ceiling() -> None:
    graph = with_high_biases(parse_graph(POINTWISE.format(activation="relu6")), bias=2.0, weight=0.01)
    x = images(2, (2, 3, 6, 6))
    absorbed, plan = absorb_high_biases(graph, channel_ranges(graph, (x,)))
    (tensor,) = plan.tensors
    assert tensor.shifted == 1
    assert difference(graph, absorbed, x) < 1e-5


def test_moments_of_a_batch_norm_give_the_shift_of_the_paper() -> None:
    graph = with_high_biases(parse_graph(POINTWISE.format(activation="relu")))
    mean, deviation = np.float64([3, 6, 0, -3]), np.float64([0.5, 0.5, 1, 1])
    ranges = channel_ranges(graph, (images(2, (2, 3, 6, 6)),))
    absorbed, _ = absorb_high_biases(graph, ranges, moments={"a": (mean, deviation)})
    np.testing.assert_allclose(graph.constants["a.bias"] - absorbed.constants["a.bias"], [1.5, 4.5, 0, 0], atol=1e-6)
