"""The voice detector that the package silero-vad (MIT) carries: a short Fourier transform as a convolution, four
convolutions and an LSTM cell, whose state the caller hands back for every 32 ms.

It hears spoken digits with pauses, noise behind both, at 16 kHz. A chunk counts as speech where the clean recording is
not far below its own loudest part. Judged as it is used: one chunk after the other, the state fed back, at the
package's threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from hard.network import Array, HardNetwork, Predict, Sources
from hard.speech import Speech, doubled, load_speech
from toolchain.samples import SampleSet, stream_samples

CHUNK, CONTEXT, HIDDEN, BINS = 512, 64, 128, 129
THRESHOLD = 0.5
QUIET_DB = -30.0
CALIBRATION_STREAMS, JUDGING_STREAMS, CHUNKS = 8, 16, 150
CALIBRATION_COUNT, JUDGING_COUNT = 200, 600


class VoiceDetector(nn.Module):
    """A chunk with what came before it (N, 576) and the state (N, 256) -> probability (N, 1), next state (N, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, HIDDEN)
        self.final_conv = nn.Conv1d(HIDDEN, 1, 1)

    def forward(self, chunk: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stft_conv(functional.pad(chunk.unsqueeze(1), (0, 64), mode="reflect"))
        x = torch.sqrt(x[:, :BINS] ** 2 + x[:, BINS:] ** 2)
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = torch.relu(convolution(x))
        h, c = self.lstm_cell(x.squeeze(-1), (state[:, :HIDDEN], state[:, HIDDEN:]))
        probability = torch.sigmoid(self.final_conv(torch.relu(h).unsqueeze(-1)))
        return probability.squeeze(-1), torch.cat([h, c], dim=1)


def load(sources: Sources) -> HardNetwork:
    speech = load_speech(sources.need_speech())
    module = VoiceDetector()
    module.load_state_dict(load_file(sources.need_weights("silero_vad/data/silero_vad_16k.safetensors")))
    module.eval()
    calibration, known = conversations(speech, np.flatnonzero(~speech.judges), CALIBRATION_STREAMS)
    chunks, spoken = conversations(speech, np.flatnonzero(speech.judges), JUDGING_STREAMS)
    random = np.random.default_rng(2)
    judged = random.permutation(spoken.size)[:JUDGING_COUNT]
    calibrating = random.permutation(known.size)[:CALIBRATION_COUNT]
    return HardNetwork(
        name="voice",
        module=module,
        calibration=_picked(module, calibration, calibrating),
        calibration_labels=known.reshape(-1)[calibrating],
        judging=_picked(module, chunks, judged),
        labels=spoken.reshape(-1)[judged],
        metric=share_told,
        measure="speech and other told apart, %, balanced",
        streams=_streams(module, calibration, known, chunks, spoken),
        stream=lambda predict: share_told([follow(predict, chunks)[0].reshape(-1, 1)], spoken.reshape(-1)),
    )


def share_told(outputs: Sequence[Array], labels: Array | None) -> float:
    """Mean of the shares of speech and of other chunks that are told rightly: 1/2 for whoever always says the same."""
    assert labels is not None
    says = outputs[0][:, 0] > THRESHOLD
    return float((says[labels == 1].mean() + (~says[labels == 0]).mean()) / 2)


def follow(predict: Predict, chunks: Array) -> tuple[Array, Array]:
    """Chunks (streams, time, 576) heard one after the other -> probabilities (streams, time) and the states before."""
    state = np.zeros((len(chunks), 2 * HIDDEN), np.float32)
    probabilities, states = [], []
    for index in range(chunks.shape[1]):
        states.append(state)
        probability, state = predict([chunks[:, index], state])
        probabilities.append(probability[:, 0])
    return np.stack(probabilities, 1), np.stack(states, 1)


def _predict(module: nn.Module) -> Predict:
    def predict(inputs: Sequence[Array]) -> list[Array]:
        with torch.inference_mode():
            return [found.numpy() for found in module(*map(torch.from_numpy, map(np.ascontiguousarray, inputs)))]

    return predict


def _streams(module: nn.Module, calibration: Array, known: Array, chunks: Array, spoken: Array) -> SampleSet:
    def streams(chunks: Array, labels: Array) -> dict[str, Array]:
        return {"chunk": chunks, "state": np.zeros((len(chunks), 2 * HIDDEN), np.float32), "labels": labels}

    judging = streams(chunks, spoken)
    return stream_samples(
        _predict(module), streams(calibration, known), {"state": 1}, judging=judging, name="conversations"
    )


def _picked(module: nn.Module, chunks: Array, numbers: Array) -> dict[str, Array]:
    """Some chunks and the states that the float network meets them in."""
    states = follow(_predict(module), chunks)[1]
    flat = chunks.reshape(-1, chunks.shape[-1]), states.reshape(-1, states.shape[-1])
    return {"chunk": flat[0][numbers], "state": flat[1][numbers]}


def conversations(speech: Speech, numbers: Array, streams: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(streams, CHUNKS, 576) and whether somebody speaks (streams, CHUNKS)."""
    random = np.random.default_rng(len(numbers))
    length = CHUNKS * CHUNK
    heard, spoken = [], []
    for _ in range(streams):
        clean = np.zeros(0, np.float32)
        while 2 * len(clean) < length:
            number = random.choice(numbers)
            word = speech.waves[number, : speech.lengths[number]]
            word = word * (random.uniform(0.1, 0.6) / max(float(np.abs(word).max()), 1e-3))
            clean = np.concatenate([clean, word, np.zeros(random.integers(2000, 8000), np.float32)])
        wave = doubled(clean[: length // 2])
        power = np.mean(wave.reshape(CHUNKS, CHUNK) ** 2, axis=1)
        spoken.append(10 * np.log10(power / power.max() + 1e-12) > QUIET_DB)
        noise = np.cumsum(random.standard_normal(length)) if random.random() < 0.3 else random.standard_normal(length)
        noise = noise - np.convolve(noise, np.full(64, 1 / 64), "same") if random.random() < 0.5 else noise
        noise *= random.uniform(0.001, 0.02) / noise.std()
        heard.append((wave + noise).astype(np.float32))
    waves = np.pad(np.stack(heard), ((0, 0), (CONTEXT, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(waves, CHUNK + CONTEXT, axis=1)[:, ::CHUNK]
    return np.ascontiguousarray(windows), np.stack(spoken).astype(np.int64)
