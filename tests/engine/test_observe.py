"""Calibration: one streaming pass gives what all samples at once would, in memory that does not grow."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from toolchain.engine.observe import COUNTED, counted_every, measure, observe
from toolchain.engine.run import activations
from toolchain.errors import UnsupportedError
from toolchain.graph import Graph, Node, Op, Source, parse_graph
from toolchain.quantization.statistics import BINS

GRAPH = parse_graph(
    "input x: float32[1,3,8,8]\nconstant w: float32[6,3,3,3]\nconstant v: float32[4,6]\n"
    "c = conv2d(x, w) activation=relu\nm = mean(c) axes=(2,3)\ny = linear(m, v)\noutput y"
)
SAMPLES = np.random.default_rng(0).standard_normal((24, 3, 8, 8)).astype(np.float32) * np.geomspace(
    0.01, 10, 24
).astype(np.float32).reshape(-1, 1, 1, 1)


def batches(size: int):
    return ((SAMPLES[start : start + size],) for start in range(0, len(SAMPLES), size))


@pytest.mark.parametrize("size", [1, 5, 8])
def test_streaming_equals_one_batch(size):
    streamed = observe(GRAPH, batches(size), histograms=True)
    at_once = observe(GRAPH, batches(24), histograms=True)
    assert list(streamed) == list(GRAPH.activations)
    for name, one in streamed.items():
        other = at_once[name]
        assert (one.elements, one.extent) == (other.elements, other.extent)
        # a batch's size may change the order in which a convolution adds
        np.testing.assert_allclose(one.minmax(), other.minmax(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.means, other.means, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.channel_min, other.channel_min, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.channel_max, other.channel_max, rtol=1e-5, atol=1e-6)
        assert one.counts.sum() == other.counts.sum() == one.elements * len(one.means)
        np.testing.assert_allclose(one.percentile(99.9), other.percentile(99.9), atol=4 * one.extent / len(one.counts))


def test_statistics_are_those_of_the_values():
    found = observe(GRAPH, batches(24))
    for name, values in activations(GRAPH, [SAMPLES]).items():
        assert found[name].minmax() == (values.min(), values.max())
        axes = (0, 2, 3) if values.ndim == 4 else (0,)
        np.testing.assert_allclose(found[name].means, values.mean(axis=axes), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found[name].channel_min, values.min(axis=axes))
        np.testing.assert_array_equal(found[name].channel_max, values.max(axis=axes))
        assert found[name].moving_average() == pytest.approx(found[name].minmax(), abs=1e-12), "of one batch"
        assert found[name].counts is None


LARGE = parse_graph("input x: float32[1,3,80,60]\ny = relu(x)\noutput y")
WHOLE = 3 * 80 * 60


def test_over_as_many_samples_as_it_leaves_out_every_place_is_counted_once():
    """Of equal samples, each value of the tensor the same often: no channel, row or column is favoured."""
    every = counted_every(WHOLE)
    assert (COUNTED < WHOLE) and 1 < every <= WHOLE / COUNTED + 8
    sample = np.random.default_rng(1).permutation(WHOLE).astype(np.float32).reshape(1, 3, 80, 60)
    counts = observe(LARGE, [(sample,)] * every, histograms=True)["x"].counts
    once = measure(torch.from_numpy(sample), 1, every=1).counts
    np.testing.assert_array_equal(counts, once)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_which_values_are_counted_does_not_depend_on_the_batches(size):
    samples = np.random.default_rng(2).standard_normal((11, 3, 80, 60)).astype(np.float32)

    def counts(size: int) -> np.ndarray:
        parts = ((samples[start : start + size],) for start in range(0, len(samples), size))
        return observe(LARGE, parts, histograms=True)["x"].counts

    np.testing.assert_array_equal(counts(size), counts(11))


@pytest.mark.parametrize("shape", [(7, 5, 4, 4), (3, 5, 20, 20), (1, 5, 2, 3), (6, 5), (2, 4, 5), (5,), ()])
def test_channels_of_any_rank_and_size(shape):
    values = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    axis = 1 if len(shape) == 4 else max(len(shape) - 1, 0)
    one = measure(torch.from_numpy(values), axis)
    others = tuple(a for a in range(len(shape)) if a != axis)
    np.testing.assert_array_equal(one.channel_min, np.atleast_1d(values.min(axis=others)))
    np.testing.assert_array_equal(one.channel_max, np.atleast_1d(values.max(axis=others)))
    permuted = torch.from_numpy(np.moveaxis(values, axis, 0).copy()).movedim(0, axis) if shape else torch.tensor(values)
    np.testing.assert_array_equal(measure(permuted, axis).channel_max, one.channel_max)


def peak_bytes(count: int) -> int:
    """numpy's own peak: what is kept between batches is numpy's."""
    stream = ((SAMPLES[:2],) for _ in range(count))
    tracemalloc.start()
    observe(GRAPH, stream, histograms=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_depend_on_the_number_of_batches():
    peak_bytes(2)  # what is imported and cached on first use
    slack = 4 * BINS * 8  # histograms that await their collection
    assert peak_bytes(500) < peak_bytes(10) + slack
    assert slack / 490 < 300, "what is kept of a batch, were it a few numbers a tensor, would show"


def test_batches_are_taken_one_by_one():
    alive = []

    def stream():
        for index in range(5):
            alive.append(index)
            yield (SAMPLES[:1],)
            assert alive[-1] == index, "a batch was taken before the one before it was done"

    observe(GRAPH, stream())
    assert alive == list(range(5))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_activation_that_is_not_finite_names_its_node_and_line(value):
    graph = Graph(
        GRAPH.inputs,
        ("y",),
        (
            Node(Op.RELU, "first", ("x",), ("a",)),
            Node(Op.MUL, "scale.mul", ("a", "huge"), ("y",), {}, Source("scale", "net.py", 7)),
        ),
        {"huge": np.float32(3e38)[...]},
    )
    with pytest.raises(UnsupportedError, match=r"mul scale\.mul: becomes NaN or infinite") as found:
        observe(graph, [(np.full((1, 3, 8, 8), 2, np.float32),)])
    assert "net.py:7" in str(found.value)
    with pytest.raises(UnsupportedError, match="input x holds NaN or infinity"):
        observe(graph, [(np.full((1, 3, 8, 8), value, np.float32),)])
