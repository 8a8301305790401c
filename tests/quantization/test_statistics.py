"""Statistics that one pass keeps: exact where they say so, whatever the batches were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolchain.engine.observe import measure
from toolchain.graph import parse_graph
from toolchain.quantization.statistics import BINS, TensorStatistics, channel_axis, extent_for, widened

batches = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 1000), st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 7.3, 1e4])),
    min_size=3,
    max_size=5,
)


def drawn(parts) -> list[np.ndarray]:
    """Batches (N, 3, 2, 2) of very different scales, some all zero."""
    return [
        (scale * np.random.default_rng(seed).standard_normal((rows, 3, 2, 2))).astype(np.float32)
        for rows, seed, scale in parts
    ]


def statistics(array: np.ndarray) -> TensorStatistics:
    return measure(torch.from_numpy(array), 1, every=1)


def assert_equal(left: TensorStatistics, right: TensorStatistics) -> None:
    assert left.minmax() == right.minmax()
    assert (left.elements, left.extent) == (right.elements, right.extent)
    np.testing.assert_allclose(left.means, right.means, rtol=0, atol=1e-6 * right.extent)


@given(batches)
def test_merging_is_the_same_in_any_grouping_and_as_measuring_at_once(parts):
    arrays = drawn(parts)
    first, second, *rest = (statistics(array) for array in arrays)
    left, right = first.merged(second), second
    for one in rest:
        left, right = left.merged(one), right.merged(one)
    right = first.merged(right)
    assert_equal(left, right)
    np.testing.assert_array_equal(left.counts, right.counts)
    at_once = statistics(np.concatenate(arrays))
    assert_equal(left, at_once)
    assert left.counts.sum() == at_once.counts.sum()
    # a value within rounding of a bin's edge may fall on either side: distributions differ by one bin
    assert np.abs(np.cumsum(left.counts) - np.cumsum(at_once.counts)).max() <= max_shift(at_once.counts)


def max_shift(counts: np.ndarray) -> int:
    return int(max(counts.max(), 1))


def test_merging_with_nothing_changes_nothing():
    one = statistics(drawn([(2, 0, 1.0)])[0])
    for merged in (TensorStatistics().merged(one), one.merged(TensorStatistics())):
        assert_equal(merged, one)
        np.testing.assert_array_equal(merged.counts, one.counts)


@pytest.mark.parametrize("doublings", [0, 1, 5, 11, 12, 40, 200])
def test_widening_keeps_every_count_on_its_side_of_zero(doublings):
    values = np.concatenate([np.linspace(-1, -1e-3, 500), np.linspace(0, 1, 700)]).astype(np.float32)
    one = statistics(values.reshape(100, 3, 2, 2))
    wide = widened(one, one.extent * 2.0**doublings)
    assert wide.sum() == 1200
    assert (wide[: BINS // 2].sum(), wide[BINS // 2 :].sum()) == (500, 700)
    reach = int(np.ceil(BINS // 2 / 2.0**doublings))
    assert not wide[: BINS // 2 - reach].any()
    assert not wide[BINS // 2 + reach :].any()


def test_widening_merges_neighbours():
    counts = np.zeros(BINS, np.int64)
    half = BINS // 2
    counts[[half, half + 1, half + 2, half - 1, half - 2, half - 3]] = [1, 2, 4, 8, 16, 32]
    wide = widened(TensorStatistics(extent=1.0, counts=counts), 2.0)
    assert list(wide[half - 2 : half + 2]) == [32, 24, 3, 4]


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9])
@pytest.mark.parametrize("skew", ["normal", "rectified", "one-sided"])
def test_percentile_against_numpy(percent, skew):
    values = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    values = {"normal": values, "rectified": np.maximum(values, 0), "one-sided": -np.exp(values)}[skew]
    one = measure(torch.from_numpy(values.reshape(-1, 4)), 1, every=1)
    tail = (100 - percent) / 2
    expected = np.percentile(values, [tail, 100 - tail])
    # a bin's width, and the slack of a bin's edge at either end
    np.testing.assert_allclose(one.percentile(percent), expected, rtol=0, atol=2 * 2 * one.extent / BINS)


@pytest.mark.parametrize("every", [1, 97])
@pytest.mark.parametrize("values_outside", [0.1, 3.5, 30.5, 3000.5])
def test_tails_thinner_than_what_is_counted(values_outside, every):
    """Of 1 in 97 values; an extreme of n exponential values scatters by 1.28, which is how far the tail may be off."""
    values = np.random.default_rng(4).exponential(size=400_000).astype(np.float32)
    one = measure(torch.from_numpy(values.reshape(-1, 1)), 1, every=every)
    percent = 100 * (1 - 2 * values_outside / values.size)
    found, expected = one.percentile(percent)[1], np.sort(values)[-1 - int(values_outside)]
    assert abs(found - expected) < (3 * 1.28 if every > 1 else 2 * 2 * one.extent / BINS + 1e-6)
    if values_outside < 1:
        assert found == values.max()


@given(batches, st.floats(51, 100))
def test_a_percentile_range_is_never_wider_than_minmax_and_all_is_minmax(parts, percent):
    one = statistics(np.concatenate(drawn(parts)))
    low, high = one.percentile(percent)
    assert one.minimum <= low <= high <= one.maximum
    assert one.percentile(100) == one.minmax()


def test_percentile_needs_a_histogram():
    with pytest.raises(ValueError, match="histograms=True"):
        measure(torch.ones(2, 3), 1).percentile(99)


def test_counts_are_exact_beyond_what_float32_counts():
    """A dead feature map of 2^24 + 4 zeros: torch.histc alone stops at 2^24."""
    dead = torch.zeros(1).expand(2**24 + 4).reshape(4, -1)
    assert measure(dead, 1, every=1).counts.sum() == 2**24 + 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="NaN or infinity"):
        measure(torch.tensor([[0.0, value]]), 1, every=1)


@pytest.mark.parametrize(
    ("bound", "extent"), [(1.0, 1.0), (1.0000001, 2.0), (0.75, 1.0), (0.0, 2.0**-126), (3e38, 2.0**128)]
)
def test_extents_are_powers_of_two(bound, extent):
    assert extent_for(bound) == extent


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_means_are_per_channel(shape):
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    axis = 1 if len(shape) == 4 else max(len(shape) - 1, 0)
    one = measure(torch.from_numpy(values), axis)
    others = tuple(a for a in range(len(shape)) if a != axis)
    np.testing.assert_allclose(one.means, np.atleast_1d(values.mean(axis=others)), rtol=1e-6, atol=1e-7)
    assert one.elements * len(one.means) == values.size


def test_channels_lie_where_the_reader_looks():
    graph = parse_graph(
        "input x: float32[1,3,4,5]\ninput z: float32[2,7,3]\n"
        "constant w: float32[6,3]\nconstant v: float32[2,3,1,1]\n"
        "c = conv2d(x, v)\np = permute(x) axes=(0,2,3,1)\na = linear(p, w)\nb = linear(z, w)\noutput a, b, c"
    )
    found = {name: channel_axis(graph, name) for name in ("x", "p", "a", "z", "b", "c")}
    assert found == {"x": 1, "p": 3, "a": 1, "z": 2, "b": 2, "c": 1}
