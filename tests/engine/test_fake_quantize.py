"""Rounding with a gradient: the values of the integer specification, straight-through and learned steps by formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toolchain.engine.fake_quantize import StepSizes, fake_quantize, fake_weight, learned_activation, learned_weight
from toolchain.graph import DType
from toolchain.quantization import AffineParams, asymmetric_params, dequantize, quantize, symmetric_params

PARAMS = {
    "asymmetric": asymmetric_params(-1.0, 3.0),
    "rectified": asymmetric_params(0.0, 3.0),
    "int16": symmetric_params(np.asarray(2.0), DType.INT16),
    "four bits": symmetric_params(np.asarray(2.0), bits=4),
}


def values(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * 2).astype(np.float32)


def inside(x: np.ndarray, params: AffineParams, scale: np.ndarray) -> np.ndarray:
    n = np.rint(x / scale) + params.broadcast(params.zero_point, x.ndim)
    return (n >= params.q_min) & (n <= params.q_max)


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_those_of_the_integers(params, dtype):
    x = values(7, 50)
    found = fake_quantize(torch.from_numpy(x).to(dtype), params)
    assert found.dtype == dtype
    # a float32 quotient may fall on the other side of a tie: then it is a step away, and such are rare
    steps = np.abs(found.numpy() - dequantize(quantize(x, params), params)) / params.step
    assert steps.max() <= 1 + 1e-3
    assert (steps > 0.5).mean() <= 0.01


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_the_gradient_is_that_of_the_clip(params):
    x = values(7, 50)
    given = torch.from_numpy(x).requires_grad_()
    upstream = torch.randn(7, 50)
    fake_quantize(given, params).backward(upstream)
    assert torch.equal(given.grad, upstream * torch.from_numpy(inside(x, params, params.scale)))


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize("is_contiguous", [True, False])
def test_a_learned_step_of_activations_has_its_gradient(params, is_contiguous):
    """dy/ds = n - x / s inside the clip and n outside, times 1 / sqrt(N q_max) with N values a sample."""
    x = values(7, 5, 6)
    scale = torch.tensor(float(params.scale) * 1.1, requires_grad=True)
    given = torch.from_numpy(x) if is_contiguous else torch.from_numpy(x).permute(0, 2, 1)
    x = given.numpy()
    given = given.detach().requires_grad_()
    upstream = torch.randn(given.shape).expand_as(given)
    y = learned_activation(given, scale, params)
    y.backward(upstream)
    s, z = float(scale.detach()), int(params.zero_point)
    n = np.clip(np.rint(x / s) + z, params.q_min, params.q_max) - z
    kept = inside(x, params, np.float32(s))
    np.testing.assert_allclose(y.detach(), n * s, rtol=1e-6, atol=1e-9)
    assert torch.equal(given.grad, upstream * torch.from_numpy(kept))
    expected = (upstream.numpy() * (n - kept * (x / s))).sum() / np.sqrt(30 * params.q_max)
    largest = (np.abs(upstream.numpy() * n)).sum() / np.sqrt(30 * params.q_max)
    assert abs(float(scale.grad) - expected) <= 1e-5 * largest


def test_learned_steps_of_weights_are_one_a_channel():
    weight = values(6, 4, 3, 3)
    bound = np.abs(weight.reshape(6, -1)).max(1) * 0.7
    params = symmetric_params(bound, axis=0, bits=4)
    scale = torch.from_numpy(params.scale.copy()).requires_grad_()
    given = torch.from_numpy(weight).requires_grad_()
    upstream = torch.randn(weight.shape)
    y = learned_weight(given, scale, params)
    y.backward(upstream)
    assert torch.equal(y, fake_weight(given, scale.detach(), params))
    s = params.scale.reshape(-1, 1, 1, 1)
    n, kept = np.clip(np.rint(weight / s), -7, 7), inside(weight, params, s)
    expected = (upstream.numpy() * (n - kept * weight / s)).sum((1, 2, 3)) / np.sqrt(36 * 7)
    np.testing.assert_allclose(scale.grad, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(given.grad, upstream * torch.from_numpy(kept))


def test_steps_stay_positive_and_no_finer_than_what_bounds_them():
    steps = StepSizes({"a": np.float32(0.5), "b": np.float32([0.1, 0.2]), "c": np.float32(0.01)}, {"c": ("a", 0.1)})
    assert [steps()[name].shape for name in "abc"] == [(), (2,), ()]
    torch.testing.assert_close(steps()["c"], torch.tensor(0.05))
    optimizer = torch.optim.SGD(steps.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        sum(scale.sum() for scale in steps().values()).backward()
        optimizer.step()
    scales = steps()
    assert all((scale > 0).all() for scale in scales.values())
    assert scales["c"] >= 0.1 * scales["a"] * (1 - 1e-6)


def test_a_step_of_descent_on_a_factor_is_one_on_the_scale_itself():
    """Relative to the scale, to first order: dt = -rate (dL/ds) / s0, so that ds = s0 dt = -rate dL/ds."""
    steps = StepSizes({"a": np.float32(0.25)}, {})
    optimizer = torch.optim.SGD(steps.parameters(), lr=1e-4)
    (3.0 * steps()["a"]).backward()
    optimizer.step()
    assert float(steps()["a"]) == pytest.approx(0.25 - 3e-4, abs=1e-6)
