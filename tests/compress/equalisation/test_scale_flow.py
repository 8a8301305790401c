import numpy as np
import pytest
from compress.channel_networks import images, random_network, traced
from compress.ranges import difference
from graph.random_graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.compress.equalisation.scale_factors import apply_factors, factor_bounds
from toolchain.compress.equalisation.scale_flow import UNIT, Channels
from toolchain.compress.equalisation.scale_rules import SCALE_RULES, trace_scales
from toolchain.graph import Codebook, Graph, Op, Structure, fold, parse_graph


def channels_of(graph: Graph, structure: Structure | None = None) -> Channels:
    return Channels.of(trace_scales(graph, structure))


def randomly_scaled(graph: Graph, seed: int = 0, structure: Structure | None = None) -> Graph:
    """Every channel that may be scaled by a factor of its own, 2^-4 to 2^4."""
    channels = channels_of(graph, structure)
    logs = np.random.default_rng(seed).uniform(-2.8, 2.8, channels.flow.count)[channels.root]
    return apply_factors(channels, np.exp(np.clip(logs, *factor_bounds(channels, None, 1.0)))).graph


def moved(before: Graph, after: Graph) -> list[str]:
    return sorted(n for n, a in before.constants.items() if not np.array_equal(a, after.constants[n]))


def labels(graph: Graph, name: str) -> list[int]:
    """Which channels of a tensor have one factor: the place of the first that has it; -1 for factor 1."""
    roots = channels_of(graph).of_tensor(name).reshape(-1).tolist()
    return [-1 if root == UNIT else roots.index(root) for root in roots]


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(0, 9))
def test_any_factors_leave_random_graphs_as_they_are(graph: Graph, seed: int) -> None:
    folded = fold(graph)
    x = images(2, (2, 4, 6, 6), seed)
    # float32 rounds a chain of ten layers to about 1e-6 of its range, more where differences cancel
    assert difference(folded, randomly_scaled(folded, seed), x) < 2e-5


@pytest.mark.parametrize("seed", range(8))
def test_any_factors_leave_random_networks_as_they_are(seed: int) -> None:
    graph = fold(traced(random_network(seed)))
    assert difference(graph, randomly_scaled(graph, seed), images(1, seed=seed)) < 1e-5


def test_rules_are_of_ops_that_exist() -> None:
    assert set(SCALE_RULES) <= set(Op)


LAYERS = """
    input x: float32[1,3,8,8]
    constant a.weight: float32[4,3,3,3]
    constant a.bias: float32[4]
    a = conv2d(x, a.weight, a.bias) padding=(1,1,1,1) activation=relu
    {middle}
    constant c.weight: float32[2,{inputs},{kernel},{kernel}]
    c = conv2d({last}, c.weight)
    output c"""


@pytest.mark.parametrize(
    ("middle", "last", "inputs", "expected"),
    [
        ("b = leaky_relu(a) slope=0.2", "b", 4, [0, 1, 2, 3]),
        ("b = max_pool2d(a) kernel_size=(2,2)", "b", 4, [0, 1, 2, 3]),
        ("b = pad(a) amounts=(0,0,1,1,0,0,1,1)", "b", 4, [0, 1, 2, 3]),
        ("b = pad(a) amounts=(0,0,1,1,0,0,1,1) value=1.0", "b", 4, [-1]),
        ("b = resize(a) size=(9,9) mode=bilinear", "b", 4, [0, 1, 2, 3]),
        ("b = concat(a, x) axis=1", "b", 7, [0, 1, 2, 3, -1, -1, -1]),
        ("b = slice(a) axes=(1,) starts=(0,) stops=(4,) steps=(2,)", "b", 2, [0, 1]),
        ("b = sigmoid(a)", "b", 4, [-1]),
        ("b = mul(a, a)", "b", 4, [-1, -1, -1, -1]),
        ("b = depth_to_space(a) block=2", "b", 1, [0]),
        ("b = clamp(a) low=0.0 high=inf", "b", 4, [0, 1, 2, 3]),
    ],
)
def test_what_a_factor_passes(middle: str, last: str, inputs: int, expected: list[int]) -> None:
    graph = parse_graph(LAYERS.format(middle=middle, last=last, inputs=inputs, kernel=1))
    assert labels(graph, last) == expected
    assert difference(graph, randomly_scaled(graph), images(1)) < 1e-5


def test_a_gate_lets_the_factors_of_what_it_multiplies_pass() -> None:
    graph = parse_graph("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[2,3,1,1]
        constant b.weight: float32[2,3,1,1]
        constant c.weight: float32[5,2,1,1]
        a = conv2d(x, a.weight)
        b = conv2d(x, b.weight)
        g = sigmoid(b)
        m = mul(g, a)
        c = conv2d(m, c.weight)
        output c""")
    assert labels(graph, "m") == [0, 1]
    assert labels(graph, "b") == [-1, -1]
    assert difference(graph, randomly_scaled(graph), images(1, (1, 3, 4, 4))) < 1e-5


def test_flatten_gives_a_channel_one_factor_for_all_its_columns() -> None:
    graph = parse_graph("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[2,3,3,3]
        constant l.weight: float32[5,8]
        a = conv2d(x, a.weight)
        f = reshape(a) shape=(1,8)
        l = linear(f, l.weight)
        output l""")
    assert labels(graph, "f") == [0, 0, 0, 0, 4, 4, 4, 4]
    assert difference(graph, randomly_scaled(graph), images(1, (1, 3, 4, 4))) < 1e-5


def test_a_residual_stream_has_one_factor_a_channel() -> None:
    graph = parse_graph("""
        input x: float32[1,3,4,4]
        constant a.weight: float32[2,3,1,1]
        constant b.weight: float32[2,2,1,1]
        constant c.weight: float32[5,2,1,1]
        a = conv2d(x, a.weight)
        b = conv2d(a, b.weight) activation=relu
        s = add(a, b)
        c = conv2d(s, c.weight)
        output c""")
    channels = channels_of(graph)
    assert np.array_equal(channels.of_tensor("a"), channels.of_tensor("b"))
    assert np.array_equal(channels.of_tensor("a"), channels.of_tensor("s"))
    assert difference(graph, randomly_scaled(graph), images(1, (1, 3, 4, 4))) < 1e-5


def test_factors_pass_attention_along_its_values() -> None:
    graph = parse_graph(
        """
        input x: float32[1,5,6]
        constant n.weight: float32[6]
        constant n.bias: float32[6]
        constant q.weight: float32[6,6]
        constant v.weight: float32[6,6]
        constant o.weight: float32[4,6]
        n = layer_norm(x, n.weight, n.bias) axes=(2,)
        q = linear(n, q.weight)
        v = linear(n, v.weight)
        t = permute(q) axes=(0,2,1)
        s = softmax(matmul) axis=2
        output s""".replace(
            "s = softmax(matmul) axis=2",
            """m = matmul(q, t)
        p = softmax(m) axis=2
        y = matmul(p, v)
        o = linear(y, o.weight)""",
        ).replace("output s", "output o")
    )
    assert labels(graph, "n") == [0, 1, 2, 3, 4, 5]
    assert labels(graph, "y") == [0, 1, 2, 3, 4, 5]
    assert set(labels(graph, "q")) == {-1}
    assert difference(graph, randomly_scaled(graph), images(1, (1, 5, 6))) < 1e-5


def test_a_weight_that_two_layers_read_stays_one() -> None:
    graph = parse_graph("""
        input x: float32[1,4]
        constant w: float32[4,4]
        constant o: float32[2,4]
        a = linear(x, w) activation=relu
        b = linear(a, w) activation=relu
        c = linear(b, o)
        output c""")
    scaled = randomly_scaled(graph)
    assert set(scaled.constants) == set(graph.constants)
    assert difference(graph, scaled, images(1, (1, 4))) < 1e-5


def test_a_bias_that_two_layers_read_becomes_two() -> None:
    graph = parse_graph("""
        input x: float32[1,4]
        constant v: float32[4,4]
        constant w: float32[4,4]
        constant bias: float32[4]
        constant o: float32[2,4]
        a = linear(x, v, bias) activation=relu
        b = linear(a, w, bias) activation=relu
        c = linear(b, o)
        output c""")
    scaled = randomly_scaled(graph)
    assert set(scaled.constants) == {*graph.constants, "bias_1"}
    assert difference(graph, scaled, images(1, (1, 4))) < 1e-5


def test_a_codebook_is_left_alone_and_said() -> None:
    graph = parse_graph(LAYERS.format(middle="b = relu(a)", last="b", inputs=4, kernel=1))
    book = Codebook(np.zeros(2, np.float32), np.zeros((2, 4, 1, 1), np.uint8))
    structure = Structure(codebooks={"c.weight": book})
    channels = channels_of(graph, structure)
    assert set(channels.of_tensor("b").reshape(-1)) == {UNIT}
    assert "codebook" in channels.flow.reasons["b"]
    assert not moved(graph, randomly_scaled(graph, structure=structure))
