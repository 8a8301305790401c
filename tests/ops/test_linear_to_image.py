"""A linear layer whose result becomes an image, as in decoders and generators: no TRANSPOSE, rows reordered instead."""

from __future__ import annotations

import pytest
from torch import nn

from tests.ops.harness import check, normal, operators

CODE = normal(3, 10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("between", [nn.Identity(), nn.Tanh(), nn.LeakyReLU(0.1), nn.ReLU()])
def test_the_rows_take_the_order_of_the_image(bias, between):
    layers = (nn.Linear(10, 4 * 3 * 5, bias), between, nn.Unflatten(1, (4, 3, 5)), nn.Conv2d(4, 6, 3))
    assert "TRANSPOSE" not in operators(check(nn.Sequential(*layers), CODE))


def test_a_code_flattened_before_and_unflattened_behind():
    layers = (
        *(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 4 * 2, 6 * 2 * 3), nn.ReLU(), nn.Unflatten(1, (6, 2, 3))),
        nn.ConvTranspose2d(6, 3, 4, 2, 1),
    )
    assert "TRANSPOSE" not in operators(check(nn.Sequential(*layers), normal(2, 3, 6, 4)))


class _Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.conv = nn.Linear(10, 60), nn.Conv2d(4, 6, 3)

    def forward(self, x):
        x = self.linear(x)
        return self.conv(x.reshape(-1, 4, 3, 5)), x


def test_a_result_that_is_also_read_as_a_vector_keeps_its_order():
    assert operators(check(_Both(), CODE))["TRANSPOSE"] == 1
