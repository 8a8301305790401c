"""The memory plan beside the interpreter's own: the same head of the arena, to the byte."""

import pytest
import torch
from torch import nn

from tests.backends.tflite_micro.micro_networks import (
    autoencoder,
    convolutional,
    drawn,
    int8_model,
    needs_micro,
    written,
)
from toolchain.backends.tflite_micro.interpreter import run
from toolchain.backends.tflite_micro.plan import Buffer, activations, alive_at_peak, head_bytes
from toolchain.formats.tflite.parse import parse


class Branches(nn.Module):
    """Activations that outlive what is made after them."""

    def __init__(self):
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.side(self.side(x).relu())
        return self.last(torch.cat([x, x + y], 1))


NETWORKS = {
    "convolutions": (convolutional, (1, 1, 32, 24)),
    "linear": (autoencoder, (1, 256)),
    "branches": (Branches, (1, 3, 12, 10)),
    "pools": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.AvgPool2d(2)), (1, 4, 16, 14)),
}


@needs_micro
@pytest.mark.parametrize("name", NETWORKS)
def test_the_planned_head_is_the_interpreters(name):
    make, shape = NETWORKS[name]
    samples = drawn(*shape, count=1)
    given = written(int8_model(make(), samples[0]), *samples)
    ran = run(given.content, given.inputs, 2**24, outputs=1)
    assert ran.arena.head == head_bytes(activations(parse(given.content)))


def test_buffers_share_what_no_other_needs_at_the_time():
    # a and c never meet: c lies where a was
    a, b, c = Buffer("a", 100, 0, 1), Buffer("b", 30, 1, 2), Buffer("c", 90, 2, 3)
    assert head_bytes([a, b, c]) == 112 + 32
    assert [buffer.name for buffer in alive_at_peak([a, b, c])] == ["a", "b"]


def test_a_gap_between_two_is_filled():
    outer = [Buffer("low", 64, 0, 9), Buffer("middle", 48, 0, 1), Buffer("high", 32, 0, 9)]
    assert head_bytes([*outer, Buffer("late", 40, 2, 3)]) == 64 + 48 + 32


def test_a_decoded_weight_lives_with_its_layer():
    given = written(int8_model(autoencoder(), drawn(1, 256)[0]), *drawn(1, 256))
    model = parse(given.content)
    weight = model.operators[0].inputs[1]
    assert head_bytes(activations(model, [weight])) >= 64 * 256 + 256 + 64
