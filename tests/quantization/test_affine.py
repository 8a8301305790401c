"""The affine arithmetic: what every integer in both files rests on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.graph import DType
from toolchain.quantization import AffineParams, asymmetric_params, dequantize, quantize, symmetric_params
from toolchain.quantization.affine import bias_params

LARGE = 2.0**100
finite = st.floats(-LARGE, LARGE, width=32)
dtypes = st.sampled_from([DType.INT8, DType.UINT8, DType.INT16])

# Scales are float32: over the 2^16 steps of int16 their rounding (2^-24) adds up to 2^-8 of a step.
HALF_STEP = 0.5 + 2.0**-7


@given(finite, finite, dtypes, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_what_lies_in_the_range_comes_back_within_half_a_step(one, other, dtype, shares):
    low, high = min(one, other), max(one, other)
    params = asymmetric_params(low, high, dtype)
    values = np.array([low + share * (high - low) for share in shares])
    error = np.abs(dequantize(quantize(values, params), params) - values)
    assert np.all(error <= HALF_STEP * params.step)


@given(finite, finite, dtypes)
def test_zero_is_exact(low, high, dtype):
    params = asymmetric_params(min(low, high), max(low, high), dtype)
    zero = quantize(np.zeros(1), params)
    assert zero[0] == params.zero_point
    assert dequantize(zero, params)[0] == 0.0


@given(st.floats(2.0**-100, LARGE, width=32), dtypes)
def test_a_rectified_range_starts_at_the_lowest_integer(high, dtype):
    params = asymmetric_params(0.0, high, dtype)
    assert params.zero_point == params.q_min
    assert params.bounds[0] == 0.0
    assert params.bounds[1] == pytest.approx(high, rel=1e-6)


def test_zeros_have_a_scale_of_no_great_size():
    params = asymmetric_params(0.0, 0.0)
    assert (params.scale, params.zero_point) == (np.float32(1 / 255), -128)


@given(finite, finite, dtypes)
def test_integers_stay_in_the_dtype(low, high, dtype):
    params = asymmetric_params(min(low, high), max(low, high), dtype)
    q = quantize(np.array([-3e38, low, high, 3e38]), params)
    assert q.dtype == dtype.numpy
    assert (q[0], q[-1]) == (np.iinfo(q.dtype).min, np.iinfo(q.dtype).max)


@given(st.lists(finite, min_size=1, max_size=8), st.booleans())
def test_symmetric_integers_never_take_the_lowest(values, per_channel):
    weight = np.array(values, np.float32)[:, None]
    bound = np.abs(weight).max(axis=1) if per_channel else np.abs(weight).max()
    params = symmetric_params(bound, axis=0 if per_channel else None)
    q = quantize(np.concatenate([weight, -3e38 * np.ones_like(weight)], axis=1), params)
    assert q.min() >= -127
    np.testing.assert_array_equal(params.zero_point, 0)
    error = np.abs(dequantize(quantize(weight, params), params).astype(np.float64) - weight)
    assert np.all(error <= HALF_STEP * params.broadcast(params.scale, 2))


def test_rounding_is_to_the_nearest_even():
    params = AffineParams(DType.INT8, np.asarray(1.0), np.asarray(0))
    np.testing.assert_array_equal(quantize(np.array([-1.5, -0.5, 0.5, 1.5, 2.5]), params), [-2, 0, 0, 2, 2])


def test_each_channel_has_its_own_scale_along_its_axis():
    params = symmetric_params(np.array([127.0, 254.0]), axis=1)
    real = np.array([[[10.0], [10.0]], [[-3.0], [-3.0]]])
    np.testing.assert_array_equal(quantize(real, params)[..., 0], [[10, 5], [-3, -2]])
    np.testing.assert_array_equal(dequantize(quantize(real, params), params)[1, :, 0], [-3.0, -4.0])


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.0), (1e-45, 2e-45), (0.0, 1e-40), (-3e38, 3e38), (5.0, 5.0), (-5.0, -5.0), (1e-3, 1e30)],
    ids=str,
)
def test_degenerate_ranges_have_usable_params(low, high):
    params = asymmetric_params(low, high)
    assert np.isfinite(params.scale)
    assert params.scale > 0
    values = np.array([low, 0.0, high])
    assert np.all(np.abs(dequantize(quantize(values, params), params) - values) <= HALF_STEP * params.step)


@pytest.mark.parametrize("bound", [0.0, 1e-45, 3e38])
def test_degenerate_weights_have_usable_params(bound):
    params = symmetric_params(np.array([bound, 1.0]), axis=0)
    assert np.all(np.isfinite(params.scale) & (params.scale > 0))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_scales_that_mean_nothing_are_refused(scale):
    with pytest.raises(ValueError, match="positive and finite"):
        AffineParams(DType.INT8, np.asarray(scale), np.asarray(0))


@given(st.lists(st.floats(2.0**-120, LARGE, width=32), min_size=1, max_size=5), st.integers(-128, 127))
def test_plain_values_read_back_to_equal_params(scales, zero):
    per_tensor = AffineParams(DType.INT8, np.asarray(scales[0]), np.asarray(zero))
    per_channel = AffineParams(DType.INT32, np.asarray(scales), np.zeros(len(scales)), axis=0, q_min=-5, q_max=7)
    for params in (per_tensor, per_channel):
        again = AffineParams.from_plain(json.loads(json.dumps(params.to_plain())))
        assert again == params
        assert hash(again) == hash(params)
        assert again.scale.shape == params.scale.shape
        np.testing.assert_array_equal(again.scale, params.scale)


def test_params_differ_where_any_part_does():
    params = asymmetric_params(-1.0, 1.0)
    assert params != asymmetric_params(-1.0, 1.001)
    assert params != AffineParams(DType.INT8, params.scale, params.zero_point, q_min=-127)
    assert params != "params"


def test_a_bias_is_in_the_steps_of_the_accumulator():
    source, weight = asymmetric_params(-1.0, 3.0), symmetric_params(np.array([1.0, 0.5]), axis=0)
    bias = bias_params(source, weight)
    np.testing.assert_array_equal(bias.scale, source.scale * weight.scale)
    assert (bias.dtype, bias.axis, bias.q_min, bias.q_max) == (DType.INT32, 0, -(2**31), 2**31 - 1)
    assert bias_params(source, symmetric_params(np.asarray(1.0))).axis is None


def test_a_bias_of_the_smallest_scales_still_has_one():
    tiny = asymmetric_params(0.0, 1e-40)
    assert np.all(bias_params(tiny, symmetric_params(np.array([1e-9]), axis=0)).scale > 0)
