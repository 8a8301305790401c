"""Ranges: each method against its definition, written out slowly, and on tensors that break the naive forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolchain.engine.observe import measure
from toolchain.graph import DType
from toolchain.quantization import Granularity, RangeMethod, choose_range, mse_weight_bounds
from toolchain.quantization.affine import asymmetric_params, dequantize, largest_integer, quantize, symmetric_params
from toolchain.quantization.range_methods import activation_params
from toolchain.quantization.statistics import BINS, MOMENTUM, TensorStatistics

STATISTICAL = [method for method in RangeMethod if method is not RangeMethod.AUTO]
SEARCHED = [RangeMethod.ENTROPY, RangeMethod.MSE]
DRAWN = np.random.default_rng(0)
TENSORS = {
    "normal": DRAWN.standard_normal(12_000),
    "laplace": DRAWN.laplace(size=12_000),
    "rectified": np.maximum(DRAWN.laplace(size=12_000), 0),
    "skewed": np.exp(0.7 * DRAWN.standard_normal(12_000)) - 0.3,
    "uniform": DRAWN.uniform(-1, 3, 12_000),
    "outliers": np.append(DRAWN.standard_normal(12_000), [-40.0, 60.0]),
    "relu6": np.clip(3 * DRAWN.standard_normal(12_000), 0, 6),
}


def counted(values: np.ndarray) -> TensorStatistics:
    return measure(torch.from_numpy(np.asarray(values, np.float32).reshape(-1, 1)), 1, every=1)


def squared_error(values: np.ndarray, low: float, high: float, dtype: DType = DType.INT8) -> float:
    params = asymmetric_params(low, high, dtype)
    return float(np.square(values - dequantize(quantize(values, params), params)).sum())


@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT4])
@pytest.mark.parametrize("name", TENSORS)
def test_mse_ends_where_the_error_is_least(name, dtype):
    values = TENSORS[name].astype(np.float32)
    found = choose_range(counted(values), RangeMethod.MSE, dtype=dtype)
    shares = np.geomspace(0.02, 1, 20)
    tried = [(low, high) for low in shares * min(values.min(), 0) for high in shares * values.max()]
    least = min(squared_error(values, *ends, dtype) for ends in dict.fromkeys(tried))
    # a scale lies within 2 % of one that is tried, and near its least the error moves by the square of that
    assert squared_error(values, *found, dtype) <= 1.02 * least


@pytest.mark.parametrize("name", ["normal", "laplace"])
def test_mse_of_a_symmetric_grid(name):
    values = TENSORS[name].astype(np.float32)
    statistics = counted(values)
    low, high = choose_range(statistics, RangeMethod.MSE, dtype=DType.INT4, symmetric=True)
    assert low == -high

    def error(bound: float) -> float:
        params = activation_params(-bound, bound, DType.INT4, symmetric=True)
        return float(np.square(values - dequantize(quantize(values, params), params)).sum())

    assert error(high) <= 1.02 * min(error(share * statistics.maximum) for share in np.linspace(0.05, 1, 60))


def divergence(values: np.ndarray, bound: float, groups: int) -> float:
    """Migacz' search at one threshold, bin by bin: 2,048 bins over the extent of |x|."""
    width = counted(values).extent / 2048
    bins = np.bincount(np.minimum(np.abs(values) / width, 2047).astype(int), minlength=2048).astype(float)
    kept = round(bound / width)
    p = bins[:kept].copy()
    p[-1] += bins[kept:].sum()
    q = np.zeros(kept)
    for group in range(groups):
        inside = [b for b in range(kept) if b * groups // kept == group]
        filled = [b for b in inside if p[b]]
        q[filled] = sum(bins[b] for b in inside) / max(len(filled), 1)
    some = p > 0
    p, q = p[some] / p.sum(), q[some] / q.sum()
    return float(np.inf if (q == 0).any() else (p * np.log(p / q)).sum())


@pytest.mark.parametrize("name", ["normal", "laplace"])
def test_entropy_is_the_published_search(name):
    values = np.concatenate([TENSORS[name], -TENSORS[name]]).astype(np.float32)
    low, high = choose_range(counted(values), RangeMethod.ENTROPY, symmetric=True)
    extent = counted(values).extent
    tried = [divergence(values, bound, 128) for bound in np.linspace(128 / 2048 * extent, np.abs(values).max(), 40)]
    assert low == -high
    assert divergence(values, high, 128) <= 1.1 * min(tried)
    assert high < np.abs(values).max()


@pytest.mark.parametrize("method", SEARCHED)
def test_a_tensor_that_is_clipped_already_keeps_its_ends(method):
    assert choose_range(counted(TENSORS["relu6"]), method) == (0.0, 6.0)
    mostly_zero = np.where(DRAWN.random(12_000) < 0.9, 0, DRAWN.uniform(0, 5, 12_000))
    low, high = choose_range(counted(mostly_zero), method)
    assert low == 0 and high > 4.5


@pytest.mark.parametrize("method", SEARCHED)
def test_each_end_is_chosen_for_itself(method):
    values = np.concatenate([-np.abs(TENSORS["uniform"]), np.abs(TENSORS["laplace"])])
    statistics = counted(values)
    low, high = choose_range(statistics, method, dtype=DType.INT4)
    assert low < 0.8 * statistics.minimum, "the flat side is kept"
    assert high < 0.95 * statistics.maximum, "the long tail is clipped"


@pytest.mark.parametrize("method", STATISTICAL)
@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 9,
        [3.5] * 9,
        [-2.0] * 9,
        [0.0, 1e-38],
        [1e-30, 2e-30, -1e-30],
        [0.0, 1.0],
        [3e38, -3e38],
        [5.0, 6.0],
        [1e-45],
    ],
    ids=str,
)
def test_tensors_of_few_values_or_tiny_and_huge_ranges(method, values):
    statistics = counted(values)
    for symmetric in (False, True):
        low, high = choose_range(statistics, method, symmetric=symmetric)
        assert statistics.minimum <= low <= high <= statistics.maximum


@given(
    st.integers(0, 1000),
    st.sampled_from(STATISTICAL),
    st.sampled_from([(DType.INT8, False), (DType.INT8, True), (DType.INT16, True), (DType.INT4, False)]),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e6]),
)
def test_no_method_is_wider_than_minmax(seed, method, numbers, scale):
    rng = np.random.default_rng(seed)
    statistics = counted(scale * (rng.standard_normal(rng.integers(1, 300)) + rng.normal()) ** 3)
    dtype, symmetric = numbers
    low, high = choose_range(statistics, method, dtype=dtype, symmetric=symmetric)
    assert statistics.minimum <= low <= high <= statistics.maximum


@pytest.mark.parametrize("method", SEARCHED)
def test_sixteen_bits_have_room_for_everything(method):
    statistics = counted(TENSORS["laplace"])
    low, high = choose_range(statistics, method, dtype=DType.INT16, symmetric=True)
    assert (low, high) == (max(-max(map(abs, statistics.minmax())), statistics.minimum), statistics.maximum)


def test_the_histogram_alone_counts_and_a_missed_extreme_is_put_back():
    """Every seventh value is counted, and the outlier is not among them: mse knows of it all the same."""
    values = TENSORS["uniform"].astype(np.float32).copy()
    values[3] = 3.4
    seen = measure(torch.from_numpy(values.reshape(-1, 1)), 1, every=7)
    assert seen.counts[round(BINS / 2 * (1 + 3.4 / seen.extent)) - 1 :].sum() == 0
    low, high = choose_range(seen, RangeMethod.MSE)
    assert squared_error(values, low, high) <= 1.02 * squared_error(values, *seen.minmax())


def test_the_moving_average_is_that_of_the_batches_in_order():
    batches = [DRAWN.standard_normal((20, 3, 2, 2)).astype(np.float32) * (1 + step) for step in range(7)]
    parts = [measure(torch.from_numpy(b), 1).after_batch(float(b.min()), float(b.max())) for b in batches]
    weights = MOMENTUM ** np.arange(6, -1, -1)
    expected = [np.average([getattr(b, end)() for b in batches], weights=weights) for end in ("min", "max")]
    left = parts[0]
    for part in parts[1:]:
        left = left.merged(part)
    right = (
        parts[0].merged(parts[1]).merged(parts[2].merged(parts[3]).merged(parts[4].merged(parts[5])).merged(parts[6]))
    )
    for one in (left, right):
        np.testing.assert_allclose(choose_range(one, RangeMethod.MOVING_AVERAGE), expected, rtol=1e-9)


def test_what_statistics_cannot_say_is_refused():
    bare = measure(torch.ones(2, 3), 1)
    for method in (RangeMethod.PERCENTILE, *SEARCHED):
        with pytest.raises(ValueError, match="histograms=True"):
            choose_range(bare, method)
    with pytest.raises(ValueError, match="measuring"):
        choose_range(counted(TENSORS["normal"]), RangeMethod.AUTO)


def weight_error(weight: np.ndarray, bound: np.ndarray, bits: int, power: float) -> np.ndarray:
    params = symmetric_params(bound, axis=0 if bound.ndim else None, bits=bits)
    return (np.abs(weight - dequantize(quantize(weight, params), params)) ** power).reshape(len(weight), -1).sum(axis=1)


@pytest.mark.parametrize("power", [2.0, 2.4])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("granularity", list(Granularity))
def test_weight_bounds_are_those_of_least_error(bits, granularity, power):
    weight = (DRAWN.laplace(size=(6, 8, 3, 3)) * np.geomspace(0.1, 10, 6).reshape(-1, 1, 1, 1)).astype(np.float32)
    found = mse_weight_bounds(weight, bits=bits, granularity=granularity, power=power)
    per_tensor = granularity == Granularity.PER_TENSOR
    most = np.abs(weight).max() if per_tensor else np.abs(weight).reshape(6, -1).max(axis=1)
    assert found.shape == np.shape(most)
    assert (found <= most).all()
    tried = np.stack([weight_error(weight, np.asarray(most * s), bits, power) for s in np.linspace(0.05, 1, 96)])
    least = tried.sum(axis=1).min() if per_tensor else tried.min(axis=0)
    error = weight_error(weight, found, bits, power)
    # bounds are tried 1 % apart around the best of those 4 % apart
    assert (np.asarray(error.sum() if per_tensor else error) <= 1.02 * least).all()


def test_channels_of_zeros_and_single_weights():
    weight = np.zeros((3, 4), np.float32)
    weight[1, 2], weight[2] = -5, 0.25
    np.testing.assert_allclose(mse_weight_bounds(weight, bits=4), [0, 5, 0.25])
    assert largest_integer(DType.INT8, 4) == 7
    assert float(mse_weight_bounds(weight, granularity=Granularity.PER_TENSOR)) > 4.5
