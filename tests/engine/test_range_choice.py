"""Ranges chosen by measuring: the same tensor gets another range where other ops read it."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain.engine.observe import observe
from toolchain.engine.range_choice import choose_measured
from toolchain.graph import Graph, parse_graph
from toolchain.quantization import RangeMethod, Scheme, assign_params, shared_groups

CLIPPED = {RangeMethod.PERCENTILE, RangeMethod.ENTROPY, RangeMethod.MSE}
RNG = np.random.default_rng(0)
SAMPLES = RNG.standard_normal((24, 64, 8)).astype(np.float32)
SAMPLES[:, 0, 7] = 40 * (1 + 0.1 * RNG.standard_normal(24))  # one value of 512 far from the others


def network(text: str, **constants: np.ndarray) -> Graph:
    graph = parse_graph(text)
    return graph.with_constants({name: array.astype(np.float32) for name, array in constants.items()})


def batches(size: int = 8):
    return ((SAMPLES[start : start + size],) for start in range(0, len(SAMPLES), size))


def chosen(graph: Graph, **options) -> dict:
    """With a percentile that leaves the outlier out."""
    statistics = observe(graph, batches(), histograms=True)
    return choose_measured(graph, statistics, batches(), percentile=99.0, **options)


LINEAR = "input x: float32[1,64,8]\nconstant w: float32[5,8]\n"


def weights(of_last: float) -> np.ndarray:
    found = RNG.standard_normal((5, 8))
    found[:, 7] = of_last
    return found


@pytest.mark.parametrize(
    "moves",
    ["y = linear(x, w)", "a = reshape(x) shape=(1,8,8,8)\nb = reshape(a) shape=(1,64,8)\ny = linear(b, w)"],
    ids=["read", "read behind moves"],
)
def test_what_readers_do_with_outliers_decides(moves):
    text = f"{LINEAR}{moves}\noutput y"
    blind, seeing = (network(text, w=weights(of_last)) for of_last in (0.0, 1.0))
    method, (low, high) = chosen(blind)["x"]
    assert method in CLIPPED
    assert -6 < low < -2 and 2 < high < 10
    assert chosen(seeing)["x"][0] is RangeMethod.MINMAX


def test_tensors_with_one_scale_are_one_choice():
    text = (
        f"{LINEAR}a = relu(x)\nb = slice(a) axes=(1,) starts=(1,) stops=(3,) steps=(1,)\n"
        "c = concat(a, b) axis=1\ny = linear(c, w)\noutput y"
    )
    graph = network(text, w=weights(0.0))
    found = chosen(graph)
    groups = shared_groups(graph)
    assert groups["a"] == groups["b"] == groups["c"]
    assert len({found[name][0] for name in "abc"}) == 1 and found["a"][0] in CLIPPED
    params = assign_params(graph, {name: extent for name, (_, extent) in found.items()}, Scheme()).params
    assert params["a"].bounds[1] < 10, "the union of the chosen ranges leaves the outlier out"


def test_constants_that_share_a_scale_are_in_the_choice():
    """Where the constant reaches as far as the outlier, no range that is narrower holds both: nothing is won."""
    text = LINEAR.replace("constant w", "constant t: float32[1,2,8]\nconstant w")
    text += "c = concat(x, t) axis=1\ny = linear(c, w)\noutput y"
    near, far = (network(text, w=weights(0.0), t=np.full((1, 2, 8), value)) for value in (1.0, 44.0))
    assert chosen(near)["x"][0] in CLIPPED
    assert chosen(far)["x"][0] is RangeMethod.MINMAX


def test_an_output_counts_with_its_own_error():
    graph = network(f"{LINEAR}a = relu(x)\ny = linear(a, w)\noutput y, a", w=weights(0.0))
    assert chosen(graph)["a"][0] is RangeMethod.MINMAX
    assert chosen(network(f"{LINEAR}a = relu(x)\ny = linear(a, w)\noutput y", w=weights(0.0)))["a"][0] in CLIPPED


def test_what_is_fixed_or_holds_no_reals_is_left_alone():
    graph = network(
        f"{LINEAR}a = linear(x, w)\ns = sigmoid(a)\ni = argmax(s) axis=2 keepdim=True\n"
        "p = softmax(a) axis=2\ny = add(s, p)\noutput y, i",
        w=weights(0.0),
    )
    found = chosen(graph)
    assert set(found) == {"x", "a", "s", "p", "y"}
    assert found["s"] == (RangeMethod.MINMAX, observe(graph, batches())["s"].minmax())
    assert found["p"][0] is RangeMethod.MINMAX


def test_a_tensor_that_only_indices_are_read_from_counts_itself():
    graph = network(f"{LINEAR}a = linear(x, w)\ni = argmax(a) axis=2 keepdim=True\noutput i", w=weights(1.0))
    assert chosen(graph)["a"][0] is RangeMethod.MINMAX


def test_it_reads_only_the_samples_it_needs_and_every_run_is_the_same():
    graph = network(f"{LINEAR}a = relu(x)\ny = linear(a, w)\noutput y", w=weights(0.0))
    statistics = observe(graph, batches(), histograms=True)
    taken = []

    def stream():
        for batch in batches(5):
            taken.append(len(batch[0]))
            yield batch

    once = choose_measured(graph, statistics, stream(), samples=8)
    assert taken == [5, 5]
    assert once == choose_measured(graph, statistics, batches(8), samples=8)


def test_results_that_are_not_finite_lose():
    """Rounding to a coarse grid makes small values zero, and their logarithm infinite: no candidate is better."""
    graph = network(f"{LINEAR}a = sigmoid(x)\nb = mul(a, a)\nl = log(b)\ny = linear(l, w)\noutput y", w=weights(0.0))
    assert chosen(graph)["b"][0] is RangeMethod.MINMAX


@pytest.mark.parametrize("symmetric", [False, True])
def test_symmetric_grids(symmetric):
    graph = network(f"{LINEAR}y = linear(x, w)\noutput y", w=weights(0.0))
    assert chosen(graph, symmetric=symmetric)["x"][0] in CLIPPED


def test_samples_that_are_mixed_are_run_as_traced():
    text = LINEAR.replace("1,64,8", "2,64,8") + "a = concat(x, x) axis=0\ny = linear(a, w)\noutput y"
    assert chosen(network(text, w=weights(0.0)))["x"][0] in CLIPPED
