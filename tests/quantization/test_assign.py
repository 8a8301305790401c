"""From ranges to parameters: groups, fixed scales, weights, biases."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain.errors import UnsupportedError
from toolchain.graph import Codebook, DType, Graph, Op, Structure, parse_graph
from toolchain.quantization import (
    Granularity,
    QuantizedGraph,
    Scheme,
    assign_params,
    asymmetric_params,
    clamp_integers,
    clamp_is_implied,
    dequantize,
    refit_weights,
    shared_groups,
)

IMAGE = "input x: float32[1,4,6,6]\n"
RNG = np.random.default_rng(0)


def ranges(graph: Graph, **given: tuple[float, float]) -> dict[str, tuple[float, float]]:
    """Every activation's range: (-1, 1) where nothing else is given."""
    return {name: given.get(name, (-1.0, 1.0)) for name in graph.activations}


def assigned(text: str, scheme: Scheme | None = None, constants=None, **given) -> QuantizedGraph:
    graph = parse_graph(text, constants)
    return assign_params(graph, ranges(graph, **given), scheme or Scheme())


# ---- activations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "partners"),
    [
        ("y = concat(a, x) axis=1", {"a", "x", "y"}),
        ("y = reshape(a) shape=(1,144)", {"a", "y"}),
        ("y = permute(a) axes=(0,2,3,1)", {"a", "y"}),
        ("y = max_pool2d(a) kernel_size=(2,2)", {"a", "y"}),
        ("y = avg_pool2d(a) kernel_size=(2,2)", {"a", "y"}),
        ("y = pad(a) amounts=(0,0,1,1,0,0,1,1)", {"a", "y"}),
        ("y = slice(a) axes=(1,) starts=(0,) stops=(2,) steps=(1,)", {"a", "y"}),
        ("y = relu(a)", {"y"}),
        ("y = mean(a) axes=(2,3)", {"y"}),
        ("y = add(a, x)", {"y"}),
    ],
)
def test_ops_that_move_integers_share_one_range_and_others_do_not(line, partners):
    model = assigned(f"{IMAGE}a = leaky_relu(x)\n{line}\noutput y", x=(-3, 1), a=(-1, 5), y=(-0.5, 0.5))
    assert {name for name in ("x", "a", "y") if model.params[name] == model.params["y"]} == partners
    union = {"x": (-3, 1), "a": (-1, 5), "y": (-0.5, 0.5)}
    low, high = min(union[p][0] for p in partners), max(union[p][1] for p in partners)
    assert model.params["y"] == asymmetric_params(low, high)


def test_groups_reach_through_chains_of_ops():
    graph = parse_graph(
        IMAGE
        + "a = tanh(x)\nb = sigmoid(x)\nc = relu(x)\nd = concat(c, x) axis=1\n"
        + "e = max_pool2d(d) kernel_size=(2,2)\nf = reshape(e) shape=(1,200)\noutput f, a, b"
    )
    groups = shared_groups(graph)
    assert len({groups[name] for name in ("x", "c", "d", "e", "f")}) == 1
    assert len(set(groups.values())) == 3


def test_a_constant_that_is_joined_shares_the_groups_range():
    text = IMAGE + "constant k: float32[1,1,6,6]\ny = concat(k, x) axis=1\noutput y"
    model = assigned(text, constants={"k": np.full((1, 1, 6, 6), 4, np.float32)})
    assert model.params["k"] == model.params["x"] == model.params["y"] == asymmetric_params(-1, 4)
    assert set(model.integers) == {"k"}


@pytest.mark.parametrize(
    ("op", "scale", "zero_point"),
    [("softmax(x) axis=1", 1 / 256, -128), ("sigmoid(x)", 1 / 256, -128), ("tanh(x)", 1 / 128, 0)],
)
def test_fixed_parameters_hold_whatever_the_samples_say(op, scale, zero_point):
    model = assigned(f"{IMAGE}a = {op}\ny = reshape(a) shape=(1,144)\noutput y", a=(0.2, 0.3), y=(0.2, 0.3))
    for name in ("a", "y"):
        assert (model.params[name].scale, model.params[name].zero_point) == (np.float32(scale), zero_point)


def ops_of(model) -> list[str]:
    return [node.op.value for node in model.graph.nodes]


def test_fixed_results_of_different_scales_are_joined_behind_a_requantize_each():
    model = assigned(IMAGE + "a = tanh(x)\nb = sigmoid(x)\ny = concat(a, b) axis=1\noutput y", y=(-1, 1))
    assert ops_of(model) == ["tanh", "sigmoid", "requantize", "requantize", "concat"]
    assert model.params["a.requantized"] == model.params["b.requantized"] == model.params["y"]
    assert model.params["a"].scale == np.float32(1 / 128)
    assert model.params["b"].scale == np.float32(1 / 256)


def test_a_tensor_that_a_fixed_scale_would_saturate_is_joined_behind_a_requantize():
    text = IMAGE + "a = sigmoid(x)\nb = relu(x)\ny = concat(a, b) axis=1\noutput y"
    model = assigned(text, a=(0, 1), b=(0, 3), y=(0, 3))
    assert ops_of(model) == ["sigmoid", "relu", "requantize", "concat"]
    assert model.params["y"].bounds == pytest.approx((0, 3))
    model = assigned(text, a=(0, 1), b=(0, 1), y=(0, 1))
    assert model.params["b"].scale == np.float32(1 / 256) and "requantize" not in ops_of(model)


NORM = "".join(f"constant {name}: float32[4]\n" for name in "wbmv")
ISLAND = f"input x: float32[3,4]\n{NORM}a = relu(x)\nn = batch_norm(a, w, b, m, v)\n"


def test_an_op_without_integer_kernel_computes_in_float_between_quantized_tensors():
    model = assigned(ISLAND + "y = relu(n)\noutput y")
    assert dict(model.float_nodes) == {"n": "batch_norm has no integer kernel"}
    assert {"x", "a", "n", "y"} <= set(model.params) and not set("wbmv") & set(model.params)


def test_a_float_result_that_no_integer_op_reads_stays_float():
    model = assigned(
        ISLAND + "s = slice(n) axes=(0,) starts=(0,) stops=(2,) steps=(1,)\ny = batch_norm(s, w, b, m, v)\noutput y"
    )
    assert set(model.float_nodes) == {"n", "s", "y"}
    assert set(model.params) == {"x", "a"}


def test_a_device_without_float_refuses_islands_naming_each():
    with pytest.raises(UnsupportedError, match=r"batch_norm n .*: batch_norm has no integer kernel"):
        assigned(ISLAND + "y = relu(n)\noutput y", Scheme(float_islands=False))


def test_symmetric_activations_have_zero_point_0_and_all_integers():
    model = assigned(IMAGE + "y = relu(x)\noutput y", Scheme(activation_symmetric=True), x=(-2, 1), y=(0, 1))
    params = model.params["x"]
    assert (params.zero_point, params.q_min, params.q_max) == (0, -128, 127)
    assert params.scale == np.float32(2 / 127)


def test_a_constant_operand_has_the_range_of_its_values():
    text = IMAGE + "constant k: float32[4,1,1]\ny = mul(x, k)\noutput y"
    model = assigned(text, constants={"k": np.array([0.5, 1, 2, 4], np.float32).reshape(4, 1, 1)})
    assert model.params["k"] == asymmetric_params(0.5, 4)


# ---- weights and biases ------------------------------------------------------------------------------------

LAYER = IMAGE + "constant w: float32[3,4,1,1]\nconstant b: float32[3]\ny = conv2d(x, w, b)\noutput y"


def layer(weight, bias, scheme: Scheme | None = None, **given) -> QuantizedGraph:
    weight = np.asarray(weight, np.float32).reshape(3, 4, 1, 1)
    return assigned(LAYER, scheme, {"w": weight, "b": np.asarray(bias, np.float32)}, **given)


def test_weights_have_a_scale_a_channel_and_biases_the_accumulators():
    weight = RNG.standard_normal((3, 4))
    model = layer(weight, [1, -2, 3])
    scale = np.abs(np.float32(weight)).max(axis=1) / np.float32(127)
    np.testing.assert_allclose(model.params["w"].scale, scale, rtol=1e-6)
    assert np.abs(model.integers["w"].astype(int)).max(axis=(1, 2, 3)).tolist() == [127, 127, 127]
    steps = model.params["x"].scale * model.params["w"].scale
    np.testing.assert_array_equal(model.params["b"].scale, steps)
    np.testing.assert_allclose(model.integers["b"] * steps, [1, -2, 3], atol=steps.max())


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(weight_granularity=Granularity.PER_TENSOR),
        Scheme(granularity_of_op={Op.CONV2D: Granularity.PER_TENSOR}),
    ],
)
def test_a_scheme_may_ask_for_one_scale_a_weight(scheme):
    weight = RNG.standard_normal((3, 4))
    model = layer(weight, [0, 0, 0], scheme)
    assert (model.params["w"].axis, model.params["w"].scale.shape) == (None, ())
    assert model.params["w"].scale == pytest.approx(np.abs(weight).max() / 127, rel=1e-6)


def test_a_bias_that_several_layers_read_is_one_bias_a_layer():
    text = "input x: float32[1,4]\nconstant w: float32[4,4]\nconstant b: float32[4]\n"
    model = assigned(text + "a = linear(x, w, b)\ny = linear(a, w, b)\noutput y", a=(-9, 9))
    first, second = model.graph.nodes
    assert (first.inputs[2], second.inputs[2]) == ("b", "b_1")
    np.testing.assert_array_equal(model.graph.constants["b"], model.graph.constants["b_1"])
    assert model.params["b_1"].scale == pytest.approx(9 * model.params["b"].scale, rel=1e-5)


def test_a_weight_that_several_layers_read_has_one_scale_that_serves_both_biases():
    """The second layer's bias asks for a larger scale than the weight, which is the first's as well."""
    text = "input x: float32[1,4]\nconstant w: float32[4,4]\nconstant b: float32[4]\nconstant c: float32[4]\n"
    constants = {
        "w": np.full((4, 4), 1e-9, np.float32),
        "b": np.zeros(4, np.float32),
        "c": np.full(4, 50, np.float32),
    }
    model = assigned(text + "a = linear(x, w, b)\ny = linear(a, w, c)\noutput y", constants=constants)
    for source, bias in (("x", "b"), ("a", "c")):
        np.testing.assert_array_equal(model.params[bias].scale, model.params[source].scale * model.params["w"].scale)
    assert np.abs(model.integers["c"].astype(np.int64)).max() <= 2**30


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("weight", [1e-12, 1e-6, 0.0])
def test_a_large_bias_over_tiny_weights_does_not_overflow(granularity, weight):
    model = layer(np.full((3, 4), weight), [100, -100, 1e-3], Scheme(weight_granularity=granularity))
    integers = model.integers["b"].astype(np.int64)
    # half of int32 is left to the products that the accumulator adds
    assert np.abs(integers).max() <= 2**30
    real = dequantize(model.integers["b"], model.params["b"])
    np.testing.assert_allclose(real[:2], [100, -100], rtol=1e-6)


def test_a_dead_channel_has_a_scale_and_zeros():
    weight = RNG.standard_normal((3, 4))
    weight[1] = 0
    model = layer(weight, [0, 0.5, 0])
    assert not model.integers["w"][1].any()
    assert dequantize(model.integers["b"], model.params["b"])[1] == pytest.approx(0.5, rel=1e-3)


def test_weights_that_are_all_zero():
    model = layer(np.zeros((3, 4)), [0, 0, 0])
    assert not model.integers["w"].any()
    assert not model.integers["b"].any()


@pytest.mark.parametrize("clusters", [4, 16])
def test_a_codebook_stays_a_codebook_of_integers(clusters):
    """One scale for the tensor: a scale a channel would make k values many."""
    text = "input x: float32[1,40]\nconstant w: float32[30,40]\nconstant b: float32[30]\n"
    text += "y = linear(x, w, b)\noutput y"
    values = np.sort(RNG.standard_normal(clusters)).astype(np.float32)
    # the rows reach up to different values, so that scales a channel would differ
    indices = RNG.integers(0, clusters, (30, 40)) % (1 + np.arange(30)[:, None] % clusters)
    book = Codebook(values, indices.astype(np.uint8))
    graph = parse_graph(text, {"w": book.decode()})
    model = assign_params(graph, ranges(graph), Scheme(), Structure(codebooks={"w": book}))
    assert model.params["w"].axis is None
    assert len(np.unique(model.integers["w"])) <= clusters
    assert len(np.unique(assign_params(graph, ranges(graph), Scheme()).integers["w"])) > clusters


def test_refitting_follows_the_weights_and_leaves_the_activations():
    model = layer(RNG.standard_normal((3, 4)), [1, 2, 3])
    doubled = model.graph.with_constants({"w": model.graph.constants["w"] * 2})
    again = QuantizedGraph(doubled, refit_weights(doubled, model.params))
    np.testing.assert_array_equal(again.params["w"].scale, model.params["w"].scale * 2)
    np.testing.assert_array_equal(again.integers["w"], model.integers["w"])
    np.testing.assert_array_equal(again.params["b"].scale, again.params["x"].scale * again.params["w"].scale)
    assert again.params["x"] == model.params["x"]
    assert refit_weights(model.graph, model.params) == model.params


def test_a_mean_has_no_finer_step_than_the_means_of_integers_have():
    text = "input x: float32[1,2,2,2]\ny = mean(x) axes=(2,3)\noutput y"
    # a mean that is zero but for the rounding of floats
    params = assigned(text, x=(-1, 1), y=(-1e-8, 1e-8)).params
    assert params["y"].step == pytest.approx(params["x"].step / 4)
    assert assigned(text, x=(-1, 1), y=(-0.9, 0.9)).params["y"] == asymmetric_params(-0.9, 0.9)


# ---- the quantized graph -----------------------------------------------------------------------------------


def test_params_of_unknown_tensors_are_refused():
    model = layer(np.ones((3, 4)), [0, 0, 0])
    with pytest.raises(ValueError, match="ghost"):
        QuantizedGraph(model.graph, {**model.params, "ghost": model.params["x"]})


def test_extract_gives_nodes_with_their_own_params_and_integers():
    text = "input x: float32[1,4]\nconstant w: float32[4,4]\nconstant v: float32[4,4]\n"
    model = assigned(text + "a = linear(x, w)\nb = relu(a)\ny = linear(b, v)\noutput y", b=(0, 1))
    part = model.extract(model.graph.nodes[1:])
    assert set(part.params) == {"a", "b", "v", "y"}
    np.testing.assert_array_equal(part.integers["v"], model.integers["v"])


@pytest.mark.parametrize(
    ("extent", "activation", "implied", "integers"),
    [
        ((0, 5.9), "relu", True, (-128, 127)),
        ((0, 5.9), "relu6", True, (-128, 127)),
        ((0, 6), "relu6", True, (-128, 127)),
        ((0, 12), "relu", True, (-128, 127)),
        ((0, 25.5), "relu6", False, (-128, -68)),
        ((-1, 1.55), "relu", False, (-28, 127)),
        ((-1, 1), "none", True, (-128, 127)),
        ((-6.4, 6.35), "relu6", False, (0, 120)),
    ],
)
def test_clamps_are_needed_only_where_saturation_does_not_do_it(extent, activation, implied, integers):
    params = asymmetric_params(*extent)
    assert clamp_is_implied(params, activation) is implied
    assert clamp_integers(params, activation) == integers
    if implied and activation != "none":
        assert integers == (params.q_min, params.q_max)


def test_weight_dtype_of_the_default_scheme_is_int8():
    model = layer(np.ones((3, 4)), [0, 0, 0])
    assert {model.params[name].dtype for name in ("x", "w", "y")} == {DType.INT8}
    assert {name: array.dtype for name, array in model.integers.items()} == {"w": np.int8, "b": np.int32}


def test_a_layers_weight_that_is_also_a_table_becomes_two():
    graph = parse_graph(
        "input x: int64[1,4]\nconstant w: float32[6,8]\nrows = gather(w, x) axis=0\ny = linear(rows, w)\noutput y"
    )
    model = assign_params(graph, {"rows": (-1.0, 1.0), "y": (-3.0, 3.0)}, Scheme())
    assert set(model.graph.constants) == {"w", "w_1"}
    assert model.params["w"].axis == 0
    assert model.params["w_1"] == model.params["rows"]


def test_products_that_the_results_rounding_loses_have_no_smaller_scale():
    """s_in s_w / s_out is at least 2^-23, so that the bias of a dead channel leaves most of int32 free."""
    text = IMAGE + "constant w: float32[4,1,3,3]\nconstant b: float32[4]\ny = depthwise_conv2d(x, w, b)\noutput y"
    weight = RNG.standard_normal((4, 1, 3, 3)).astype(np.float32)
    weight[2] *= 1e-9
    model = assigned(text, constants={"w": weight, "b": np.full(4, 1e-4, np.float32)}, y=(-100.0, 100.0))
    params = model.params
    multipliers = params["x"].scale * params["w"].scale / params["y"].scale
    assert multipliers.min() == pytest.approx(2.0**-23)
    assert np.abs(model.integers["b"]).max() < 2**24
