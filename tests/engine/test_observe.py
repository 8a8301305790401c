"""Calibration: one streaming pass gives what all samples at once would, in memory that does not grow."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from toolchain.engine.observe import observe
from toolchain.engine.run import activations
from toolchain.errors import UnsupportedError
from toolchain.graph import Graph, Node, Op, Source, parse_graph

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
        assert one.counts.sum() == other.counts.sum() == one.elements * len(one.means)
        np.testing.assert_allclose(one.percentile(99.9), other.percentile(99.9), atol=4 * one.extent / len(one.counts))


def test_statistics_are_those_of_the_values():
    found = observe(GRAPH, batches(24))
    for name, values in activations(GRAPH, [SAMPLES]).items():
        assert found[name].minmax() == (values.min(), values.max())
        axes = (0, 2, 3) if values.ndim == 4 else (0,)
        np.testing.assert_allclose(found[name].means, values.mean(axis=axes), rtol=1e-4, atol=1e-5)
        assert found[name].counts is None


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
    assert peak_bytes(60) < 1.05 * peak_bytes(6) + 4096


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
