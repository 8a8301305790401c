"""What tflite-micro finds of one file: arena, flash, outputs, and clear errors where the device is too small."""

import os
import signal

import numpy as np
import pytest

from tests.backends.tflite_micro.micro_networks import (
    autoencoder,
    convolutional,
    drawn,
    int8_model,
    needs_micro,
    written,
)
from toolchain.backends import BACKENDS
from toolchain.backends.tflite_micro import child, interpreter, reference
from toolchain.backends.tflite_micro.arena import Arena, read_report
from toolchain.backends.tflite_micro.interpreter import run
from toolchain.errors import BudgetError, DeviceError, DisagreementError, UnsupportedError
from toolchain.formats.artifact import InOut
from toolchain.formats.tflite import write_tflite
from toolchain.profiles import load_profile

M4 = load_profile("cortex-m4")
REPORT = """[RecordingMicroAllocator] Arena allocation total 19744 bytes
[RecordingMicroAllocator] Arena allocation head 15680 bytes
[RecordingMicroAllocator] Arena allocation tail 4064 bytes
[RecordingMicroAllocator] 'TfLiteEvalTensor data' used 552 bytes with alignment overhead (requested 552 bytes)
"""


def sized(**memory):
    return M4.model_copy(update={"memory": M4.memory.model_copy(update=memory)})


@pytest.fixture(scope="module")
def keywords():
    samples = drawn(1, 1, 32, 24)
    return written(int8_model(convolutional(), samples[0]), *samples)


@pytest.fixture(scope="module")
def measured(keywords):
    return BACKENDS["tflite_micro"].measure(keywords, M4)


@needs_micro
def test_the_arena_is_the_interpreters_own_and_the_smallest_that_works(keywords, measured):
    found = measured.by_key
    own = run(keywords.content, keywords.inputs, 2**22, outputs=1).arena
    assert found["arena_bytes"] == own.total == found["arena_head_bytes"] + found["arena_tail_bytes"]
    smallest = int(found["smallest_arena_bytes"])
    run(keywords.content, keywords.inputs, smallest, outputs=1)
    with pytest.raises(UnsupportedError, match=r"refuses the file|is ended by"):
        run(keywords.content, keywords.inputs, smallest - 16, outputs=1)


@needs_micro
def test_outputs_are_those_of_the_reference_kernels(measured):
    assert measured.by_key["reference_steps"] == 0
    assert measured.by_key["golden_steps"] <= 2
    assert measured.version and measured.file == "model.tflite"


@needs_micro
def test_the_tensors_at_the_peak_are_named(keywords, measured):
    (line,) = [note for note in measured.notes if "alive at once" in note]
    # two images of 16 x 16 x 12 meet at every depthwise and pointwise convolution
    assert line.count("(3,072 bytes)") == 2
    assert measured.by_key["peak_activation_bytes"] == 2 * 16 * 16 * 12
    assert measured.by_key["flash_bytes"] == len(keywords.content)


@needs_micro
def test_a_device_without_the_ram_is_told_what_is_needed(keywords, measured):
    with pytest.raises(BudgetError) as caught:
        BACKENDS["tflite_micro"].measure(keywords, sized(ram_kib=7))
    assert f"{measured.by_key['smallest_arena_bytes']:,.0f} bytes" in caught.value.what
    assert "7,168 bytes of RAM" in caught.value.what and "(3,072 bytes)" in caught.value.what


def test_a_device_without_the_flash_is_told_before_anything_runs(keywords, monkeypatch):
    monkeypatch.setattr(interpreter.subprocess, "run", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(BudgetError, match=rf"has {len(keywords.content):,} bytes.* 1,024 bytes of flash; the largest"):
        BACKENDS["tflite_micro"].measure(keywords, sized(flash_kib=1))


@needs_micro
def test_loading_may_take_more_than_stays():
    # few activations and many layers: the plan itself needs room for a while
    samples = drawn(1, 256)
    found = BACKENDS["tflite_micro"].measure(written(int8_model(autoencoder(depth=12), samples[0]), *samples), M4)
    assert found.by_key["smallest_arena_bytes"] > 1.01 * found.by_key["arena_bytes"]


@needs_micro
def test_linear_layers_round_once_here_and_twice_there():
    # over a deep stack some integers differ: known, told, and within what is known
    samples = drawn(1, 256, count=4)
    given = written(int8_model(autoencoder(), samples[0]), *samples)
    found = BACKENDS["tflite_micro"].measure(given, M4)
    assert 0 < found.by_key["reference_steps"] <= reference.STACK_STEPS
    assert any("FULLY_CONNECTED rounds once" in note for note in found.notes)


@needs_micro
def test_float_outputs_count_in_the_steps_of_their_integers():
    samples = drawn(1, 256, count=4)
    model = int8_model(autoencoder(), samples[0])
    given = written(model, *samples, content=write_tflite(model, in_out=InOut.FLOAT))
    found = BACKENDS["tflite_micro"].measure(given, M4)
    assert found.by_key["reference_steps"] == pytest.approx(1, abs=1e-3)


@needs_micro
@pytest.mark.parametrize("wrong", ["convolution", "far"])
def test_any_other_difference_is_a_disagreement(keywords, monkeypatch, wrong):
    tensor = reference.Reference.tensor
    # a step at the first convolution, or too many at the last linear layer
    first, last = 16 * 16 * 12, 6

    def changed(self, index):
        value = tensor(self, index)
        at, by = (first, 1) if wrong == "convolution" else (last, 4)
        near = value.size == at or (wrong == "convolution" and value.size == last)
        return np.where(value > 0, value - by, value + by) if near else value

    monkeypatch.setattr(reference.Reference, "tensor", changed)
    layer = "CONV_2D" if wrong == "convolution" else "FULLY_CONNECTED"
    with pytest.raises(DisagreementError, match=rf"differ by up to \d steps at the outputs, first at .*\({layer}\)"):
        BACKENDS["tflite_micro"].measure(keywords, M4)


def test_a_file_that_ends_the_interpreter_is_one_error(keywords, monkeypatch, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    monkeypatch.setattr(child, "__file__", str(script))
    with pytest.raises(UnsupportedError, match="is ended by SIGSEGV"):
        run(keywords.content, keywords.inputs, 2**20, outputs=1)


def test_an_interpreter_that_does_not_answer_is_given_up(keywords, monkeypatch, tmp_path):
    script = tmp_path / "waits.py"
    script.write_text("import sys; sys.stdin.read(); import time; time.sleep(60)")
    monkeypatch.setattr(child, "__file__", str(script))
    with pytest.raises(DeviceError, match=r"no answer within 0\.2 s"):
        run(keywords.content, keywords.inputs, 2**20, outputs=1, seconds=0.2)


@needs_micro
def test_a_damaged_file_is_one_error(keywords):
    damaged = bytearray(keywords.content)
    damaged[60:400] = os.urandom(0) + bytes(340)
    with pytest.raises(UnsupportedError) as caught:
        run(bytes(damaged), keywords.inputs, 2**20, outputs=1)
    assert "\n" not in caught.value.what


def test_reports_are_read_and_must_add_up():
    found = read_report("a line\n" + REPORT)
    assert found == Arena(19744, 15680, 4064, {"TfLiteEvalTensor data": 552})
    for text in ("", REPORT.replace("15680", "15681")):
        with pytest.raises(DeviceError, match="reports no arena"):
            read_report(text)


def test_it_serves_integer_tflite_files_of_microcontrollers():
    serves = BACKENDS["tflite_micro"].serves
    assert serves(M4, "model.tflite")
    assert not serves(M4, "model.float.tflite") and not serves(M4, "model.onnx")
    assert not serves(load_profile("cortex-a76"), "model.tflite")
