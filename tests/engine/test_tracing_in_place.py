"""Ops that write in place: what is read afterwards is what torch would read, or the model is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolchain.engine.run import run, to_tensors
from toolchain.engine.tracing.tracer import trace
from toolchain.errors import UnsupportedError

X = (3 * np.random.default_rng(0).standard_normal((2, 4, 6, 6))).astype(np.float32)


class Fn(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x * 1.0)  # a tensor of the model's own, which it may write to


def residual(x):
    y = F.relu(x)
    y += x
    return y


def chain(x):
    return x.add_(1).relu_().mul_(2)


def read_by_its_old_name(x):
    y = x.tanh()
    y.relu_()
    y.sub_(0.1)
    return y


def results_are_their_arguments(x):
    y = x.relu_()
    y.add_(1)
    return x


def a_clone_is_not(x):
    y = x.clone()
    y.add_(1)
    return x - y


def a_reader_before_keeps_what_it_read(x):
    before = x.tanh()
    x.mul_(3)
    return before + x


def dropout_and_relu(x):
    x = F.dropout(x, 0.5, training=False)
    return F.relu(x, inplace=True)


def view_that_alone_goes_on(x):
    x = x.flatten(1)
    x += 1
    return x.relu_()


def viewed_afterwards(x):
    F.relu_(x)
    return x.flatten(1)


def half_that_alone_goes_on(x):
    left, _ = x.chunk(2, 1)
    return left.add_(1)


def base_read_after_a_view_is_written(x):
    v = x[:, :2]
    v.add_(1)
    return x


def view_read_after_its_base_is_written(x):
    v = x.flatten(1)
    x.mul_(2)
    return v


def base_read_after_a_half_is_written(x):
    left, right = x.chunk(2, 1)
    left.relu_()
    return x + torch.cat([left, right], 1)


def through_a_view_of_a_view(x):
    v = x.permute(0, 2, 3, 1).select(1, 0)
    v.add_(1)
    return x.tanh()


def through_what_dropout_hands_on(x):
    y = F.dropout(x, 0.5, training=False)
    y.add_(1)
    return x + y


def into_a_slice(x):
    x[:, 0] = 0.0
    return x


def a_step_of_every_axis(x):
    x[:, ::2, 1:, -1] = x[:, 1::2, :5, 0] * 2
    return x


def through_a_reshape_that_copies(x):
    y = x.permute(0, 2, 3, 1).reshape(2, -1)
    y.zero_()
    return x + y.sum(1).reshape(2, 1, 1, 1)


def through_a_window(x):
    y = torch.zeros(2, 4, 8, 8)
    y[:, :, 1:7, 1:7] = x
    y[:, 0].fill_(1.0)
    y[:, :, 0] += 1
    return y


def a_mask_of_the_input(x):
    x[x < 0] = 0.5
    return x


def known_places(x):
    x[:, [3, 0]] = x[:, 1:3].clone()
    x[:, :, torch.tensor([1, 4])] = -1.0
    return x


def copied(x):
    y = torch.empty_like(x)
    y.copy_(x[:, :1])
    return y + x


def through_what_is_expanded(x):
    y = x[:, :1].expand(-1, 4, -1, -1)
    y[:, 0] = 1.0  # all four are one
    return x


SAID = [
    through_what_is_expanded,
    residual,
    chain,
    read_by_its_old_name,
    results_are_their_arguments,
    a_clone_is_not,
    a_reader_before_keeps_what_it_read,
    dropout_and_relu,
    view_that_alone_goes_on,
    viewed_afterwards,
    half_that_alone_goes_on,
    base_read_after_a_view_is_written,
    view_read_after_its_base_is_written,
    base_read_after_a_half_is_written,
    through_a_view_of_a_view,
    through_what_dropout_hands_on,
    into_a_slice,
    a_step_of_every_axis,
    through_a_reshape_that_copies,
    through_a_window,
    a_mask_of_the_input,
    known_places,
    copied,
]


@pytest.mark.parametrize("function", SAID, ids=lambda f: f.__name__)
def test_traced_equals_eager(function):
    module = Fn(function)
    graph = trace(module, (X,))
    with torch.no_grad():
        expected = module(torch.from_numpy(X.copy())).numpy()
    np.testing.assert_allclose(run(graph, to_tensors([X]))[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)),
        (
            nn.Conv2d(4, 4, 1),
            nn.Dropout(0.5, inplace=True),
            nn.ReLU6(inplace=True),
            nn.Hardswish(inplace=True),
        ),
        (nn.Flatten(), nn.Linear(144, 5), nn.LeakyReLU(0.1, inplace=True), nn.SiLU(inplace=True)),
        (nn.Conv2d(4, 4, 1), nn.Hardsigmoid(inplace=True)),
    ],
)
def test_in_place_layers(layers):
    module = nn.Sequential(*layers)
    graph = trace(module, (X,))
    expected = module.eval()(torch.from_numpy(X.copy())).detach().numpy()
    np.testing.assert_allclose(run(graph, to_tensors([X]))[0].numpy(), expected, atol=1e-5)


def an_index_of_the_input(x):
    x[:, x[0, 0, 0].argmax()] = 1.0
    return x


def test_a_write_that_depends_on_the_data_is_refused():
    with pytest.raises(UnsupportedError, match=r"not in the op set|data-dependent") as found:
        trace(Fn(an_index_of_the_input), (X,))
    assert "test_tracing_in_place.py:" in str(found.value)
