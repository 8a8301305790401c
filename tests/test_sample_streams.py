"""Streams: steps with the float network's states for calibration, whole streams with a file's own for judging."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import Calibrate, Export, Quantize, Trace, load_target, validate
from toolchain.errors import OptionError, SampleError
from toolchain.formats.artifact import Format
from toolchain.ladder.judge import Judge
from toolchain.ladder.noise import measure_noise
from toolchain.samples import followed, stream_samples
from toolchain.stages.streams import traced_streams

STEPS, WIDTH = 40, 4


class Leaky(nn.Module):
    """s' = keep s + x, seen through a head: what is rounded in s stays there for 1 / (1 - keep) steps."""

    def __init__(self, keep: float):
        super().__init__()
        self.keep = keep
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, signal, state):
        new = self.keep * state + (1 - self.keep) * signal
        return self.head(new), new


def leaky(keep: float) -> Leaky:
    torch.manual_seed(0)
    return Leaky(keep).eval()


def streams(count: int, seed: int = 0, steps: int = STEPS):
    random = np.random.default_rng(seed)
    signal = np.cumsum(random.normal(size=(count, steps, WIDTH)), axis=1).astype(np.float32)
    labels = random.integers(0, 3, (count, steps))
    return {"signal": signal, "state": np.zeros((count, WIDTH), np.float32), "labels": labels}


def count_up(inputs):
    """Adds what it hears to its state: a network whose outputs are known by hand."""
    signal, state = inputs
    return [signal * 10, state + signal]


def sums(count: int = 6):
    signal = np.arange(count * 5, dtype=np.float32).reshape(count, 5, 1)
    start = np.full((count, 1), 100, np.float32)
    return {"signal": signal, "state": start, "labels": np.arange(count * 5).reshape(count, 5)}


def test_every_step_is_a_sample_with_the_state_the_network_meets_it_in():
    samples = stream_samples(count_up, sums(), {"state": 1})
    assert (samples.calibration_count, samples.judging_count) == (25, 5)
    for batch in (*samples.calibration(), *samples.judging()):
        for signal, state, label in zip(*batch.inputs, batch.labels, strict=True):
            start = 5 * (label // 5)
            assert signal == label and state == 100 + sum(range(start, label))


def test_streams_that_may_be_learned_from_come_first_and_mixed():
    samples = stream_samples(count_up, sums(9), {"state": 1}, judging_count=1)
    numbers = np.array(samples.for_calibration.numbers)
    learned = samples.streams.learning * 5
    assert samples.streams.learning == 6 and set(numbers[:learned]) == set(range(learned))
    assert (np.diff(numbers) != 1).mean() > 0.5


def test_whole_streams_are_in_order():
    samples = stream_samples(count_up, sums(), {"state": 1}).with_batch_size(3)
    found = dict(samples.whole_streams("calibration"))
    assert list(found) == [0, 1, 2, 3, 4]
    assert [batch.labels.tolist() for batch in found.values()] == np.arange(25).reshape(5, 5).tolist()
    narrowed = samples.narrowed(24, None)  # one step of one stream is gone, and with it the stream
    assert len(list(narrowed.whole_streams("calibration"))) == 4


def test_followed_feeds_back_what_it_was_given():
    rows = [(np.ones((1, 1)), np.zeros((1, 1)))] * 4
    outputs = [float(outputs[1][0, 0]) for _, outputs in followed(count_up, rows, [(1, 1)])]
    assert outputs == [1, 2, 3, 4]
    with pytest.raises(OptionError, match="cannot go back"):
        list(followed(count_up, rows, [(1, 2)]))


@pytest.mark.parametrize(
    ("values", "feedback", "error", "says"),
    [
        (sums(), {"other": 1}, OptionError, "no input other"),
        (sums(), {"state": 7}, OptionError, "output 7 cannot go back"),
        (sums(1), {"state": 1}, SampleError, "cannot both"),
        ({**sums(), "state": np.zeros((2, 1), np.float32)}, {"state": 1}, SampleError, "no streams"),
        ({**sums(), "labels": np.arange(6)}, {"state": 1}, SampleError, "no streams"),
        ({"signal": np.zeros(6, np.float32), "state": np.zeros((6, 1), np.float32)}, {"state": 1}, SampleError, "no"),
    ],
)
def test_what_is_no_stream_is_refused(values, feedback, error, says):
    with pytest.raises(error, match=says):
        stream_samples(count_up, values, feedback)


def test_streams_of_other_lengths_are_refused():
    with pytest.raises(SampleError, match="40 steps to calibrate with, but of 5"):
        stream_samples(count_up, streams(4), {"state": 1}, judging=streams(4, steps=5))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive"])
def test_a_damaged_npz_of_streams_is_refused(tmp_path, content):
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(SampleError, match="not readable"):
        traced_streams(leaky(0.5), tmp_path / "s.npz", {"state": 1})


def test_names_in_another_order_than_the_network_has(tmp_path):
    given = streams(4)
    turned = {name: given[name] for name in ("state", "labels", "signal")}
    np.savez(tmp_path / "s.npz", **turned)
    one, other = (traced_streams(leaky(0.5), source, {"state": 1}) for source in (given, tmp_path / "s.npz"))
    for first, second in zip(one.calibration(), other.calibration(), strict=True):
        np.testing.assert_array_equal(first.inputs[1], second.inputs[0])
    assert one.fed_back == ((1, 1),) and other.fed_back == ((0, 1),)


def made(keep: float):
    samples = traced_streams(leaky(keep), streams(8), {"state": 1}, judging_count=2)
    traced = Trace(example_inputs=samples.first_inputs())(leaky(keep))
    return Quantize()(Calibrate(samples=samples)(traced)), samples


def test_an_error_that_adds_up_is_judged_as_it_does():
    """Rounding to a step D in every one of T steps and keeping the share k of it leaves D^2 / 12 / (1 - k^2)."""
    model, samples = made(0.97)
    found = {}
    for name, given in {"steps": stream_free(samples), "streams": samples}.items():
        judge = Judge(model.reference, given, (Format.ONNX, Format.TFLITE))
        found[name] = judge.measure(model.quantized)
        for file, few_db in found[name].same_samples_db.items():
            assert few_db == pytest.approx(found[name].simulated_db, abs=0.3), file
    lost = found["steps"].files["onnx"].sqnr_db - found["streams"].files["onnx"].sqnr_db
    assert 6 < lost < 18  # 10 log10(1 / (1 - 0.97^2)) is 12.3 dB


def stream_free(samples):
    return replace(samples, streams=None)


def test_noise_of_a_state_counts_as_often_as_it_comes_back():
    model, samples = made(0.97)
    graph = model.quantized.graph
    batches = [batch.inputs for _, batch in samples.whole_streams("calibration")]
    episode = [tuple(column[:, step] for column in map(np.stack, zip(*batches, strict=True))) for step in range(STEPS)]
    alone = [measure_noise(model.quantized, graph, [[step]]) for step in episode]
    followed_noise = measure_noise(model.quantized, graph, [episode], samples.fed_back)
    state = next(key for key in followed_noise.activations if key[0] == "state")
    once = np.mean([found.activations[state] for found in alone])
    assert followed_noise.activations[state] > 2 * once
    head = next(key for key in followed_noise.constants)
    assert followed_noise.constants[head] == pytest.approx(np.mean([found.constants[head] for found in alone]), rel=0.2)


def test_files_are_scored_along_streams():
    model, samples = made(0.97)
    exported = Export()(model)
    gates = load_target("arm64")[0].gates
    heard = []

    def metric(outputs, labels):
        heard.append(outputs[1])
        return 1.0

    found = validate(exported, samples, gates, metric=metric)
    assert any("streams of 40 steps" in note for note in found.notes)
    reference, *files = heard
    assert all(len(output) == samples.judging_count for output in heard)
    drift = max(float(np.abs(file - reference).max()) for file in files)
    # a file that met the reference's states would be off by the rounding of one step
    assert drift > 1.5 * model.quantized.params[model.graph.outputs[1]].step
