"""Weights as lookup tables: made where flash gained exceeds RAM lost, and never where outputs change."""

import pytest

from tests.backends.tflite_micro.micro_networks import (
    autoencoder,
    convolutional,
    drawn,
    int8_model,
    needs_micro,
    share_weights,
    written,
)
from toolchain.backends import BACKENDS
from toolchain.backends.tflite_micro import measurement
from toolchain.backends.tflite_micro.interpreter import compress, run
from toolchain.backends.tflite_micro.tables import Table, choose_tables
from toolchain.formats.tflite.parse import parse
from toolchain.profiles import load_profile
from toolchain.quantization import NumberFormat

M4 = load_profile("cortex-m4")


def shared(numbers: NumberFormat = NumberFormat.W8A8, values: int = 4):
    """Linear layers whose weights have few values."""
    samples = drawn(1, 256)
    return written(int8_model(autoencoder(values, depth=12), samples[0], numbers), *samples)


@needs_micro
@pytest.mark.parametrize("numbers", [NumberFormat.W8A8, NumberFormat.W8A8_PER_TENSOR])
def test_tables_that_pay_are_published(numbers):
    given = shared(numbers)
    found = BACKENDS["tflite_micro"].measure(given, M4)
    content = found.files["model_lut.tflite"]
    gained = len(given.content) - len(content)
    lost = found.by_key["lut_arena_bytes"] - found.by_key["arena_bytes"]
    assert found.by_key["lut_flash_bytes"] == len(content)
    assert gained > lost > 0
    # the same outputs, from the published bytes
    again = run(content, given.inputs, 2**22, outputs=1)
    plain = run(given.content, given.inputs, 2**22, outputs=1)
    assert all(
        (a == b).all()
        for one, other in zip(again.outputs, plain.outputs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@needs_micro
def test_tables_that_do_not_pay_are_not_made():
    network = convolutional()
    share_weights(network, 16)
    samples = drawn(1, 1, 32, 24)
    found = BACKENDS["tflite_micro"].measure(written(int8_model(network, samples[0]), *samples), M4)
    assert not found.files and "lut_flash_bytes" not in found.by_key
    assert any("model_lut.tflite is not made" in note for note in found.notes)


@needs_micro
def test_a_table_of_another_granularity_decodes_to_garbage_and_is_refused(monkeypatch):
    # one table for a weight with one scale a channel: the tool makes it, the kernel misreads it
    given = shared()
    wrong = tuple(
        Table(table.tensor, 7, None, table.size_bytes, table.saved_bytes)
        for table in choose_tables(parse(given.content))
    )
    content = compress(given.content, [table.plain() for table in wrong])
    ran = run(content, given.inputs, 2**22, outputs=1)
    plain = run(given.content, given.inputs, 2**22, outputs=1)
    assert any((a != b).any() for a, b in zip(ran.outputs[0], plain.outputs[0], strict=True))
    monkeypatch.setattr(measurement, "choose_tables", lambda _: wrong)
    found = BACKENDS["tflite_micro"].measure(given, M4)
    assert not found.files
    assert any("decode to other weights" in note for note in found.notes)


@needs_micro
def test_a_device_that_decodes_nothing_gets_no_tables():
    plain = M4.model_copy(update={"tflite_micro": M4.tflite_micro.model_copy(update={"weight_compression": False})})
    found = BACKENDS["tflite_micro"].measure(shared(), plain)
    assert not found.files and not any("lut" in note for note in found.notes)


def test_tables_follow_the_scales_of_a_weight():
    assert {table.axis for table in choose_tables(parse(shared().content))} == {0}
    assert {table.axis for table in choose_tables(parse(shared(NumberFormat.W8A8_PER_TENSOR).content))} == {None}


def test_weights_of_many_values_are_left_as_they_are():
    samples = drawn(1, 256)
    assert choose_tables(parse(written(int8_model(autoencoder(), samples[0]), *samples).content)) == ()
