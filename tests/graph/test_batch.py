"""Which graphs may run on several samples at once."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain.engine.observe import observe
from toolchain.engine.run import predict
from toolchain.errors import UnsupportedError
from toolchain.graph import mixes_samples, parse_graph, with_batch

MIXING = {
    "mean over all": "y = mean(x) axes=(0,1,2,3) keepdim=True",
    "softmax over axis 0": "y = softmax(x) axis=0",
    "flatten with the batch": "y = reshape(x) shape=(32,)",
    "batch moved": "y = permute(x) axes=(1,0,2,3)",
    "joined on axis 0": "y = concat(x, x) axis=0",
    "padded on axis 0": "y = pad(x) amounts=(1,0,0,0,0,0,0,0)",
    "lower rank joined": "m = mean(x) axes=(1,)\ny = add(x, m)",
}
APART = {
    "mean over the picture": "y = mean(x) axes=(2,3)",
    "flatten": "y = reshape(x) shape=(1,32)",
    "channels joined": "y = concat(x, x) axis=1",
}


@pytest.mark.parametrize("case", MIXING)
def test_what_mixes_samples_is_found(case):
    graph = parse_graph(f"input x: float32[1,2,4,4]\n{MIXING[case]}\noutput y")
    assert mixes_samples(graph) is graph.nodes[-1]


@pytest.mark.parametrize("case", APART)
def test_what_treats_samples_apart_is_not(case):
    assert mixes_samples(parse_graph(f"input x: float32[1,2,4,4]\n{APART[case]}\noutput y")) is None


def test_a_graph_that_mixes_samples_is_run_on_one_at_a_time():
    text = "input x: float32[1,2,4,4]\nm = mean(x) axes=(0,1,2,3) keepdim=True\ny = sub(x, m)\noutput y"
    graph = parse_graph(text)
    batch = np.random.default_rng(0).normal(size=(5, 2, 4, 4)).astype(np.float32)
    wanted = batch - batch.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(predict(graph, [(batch,)])[0], wanted, atol=1e-6)
    assert observe(graph, [(batch,)])["y"].maximum == pytest.approx(wanted.max(), abs=1e-6)


@pytest.mark.parametrize("case", APART)
def test_every_tensor_follows_the_batch(case):
    graph = with_batch(parse_graph(f"input x: float32[1,2,4,4]\n{APART[case]}\noutput y"), 5)
    assert {graph.types[name].shape[0] for name in graph.activations} == {5}


@pytest.mark.parametrize("case", MIXING)
def test_the_batch_of_what_mixes_samples_cannot_be_chosen(case):
    graph = parse_graph(f"input x: float32[1,2,4,4]\n{MIXING[case]}\noutput y")
    with pytest.raises(UnsupportedError, match=f"{graph.nodes[-1].name}: mixes the samples"):
        with_batch(graph, 5)
