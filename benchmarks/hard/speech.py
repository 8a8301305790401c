"""Recordings of spoken digits as log-mel spectrograms, computed outside of the networks.

energy[t, m] = sum_k mel[k, m] |FFT(window * x[t])[k]|^2, feature = (log(energy + floor) - mean) / deviation, with the
mean and the deviation of the training recordings. Of each speaker's recordings of a digit, the numbers 0-14 judge
(0-4 are the data set's own test split) and the others train.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hard.network import Array

RATE = 8000
WINDOW, HOP, BANDS = 256, 160, 32
JUDGING_INDEX = 15
FLOOR = 1e-6
CALIBRATION_COUNT = 200


@dataclass(frozen=True)
class Speech:
    """Recordings (N, 8000) float32, -1 to 1, and who says what; `judges` marks those that train nothing."""

    waves: NDArray[np.float32]
    digits: NDArray[np.int64]
    speakers: NDArray[np.int64]
    lengths: NDArray[np.int64]
    judges: NDArray[np.bool_]

    def calibrating(self, count: int = CALIBRATION_COUNT) -> NDArray[np.int64]:
        """Numbers of training recordings, spread over all speakers and digits."""
        chosen: NDArray[np.int64] = np.random.default_rng(0).permutation(np.flatnonzero(~self.judges))[:count]
        return chosen


@dataclass(frozen=True)
class Keywords:
    """Features (N, frames, bands) and digits: of training, calibration (part of the former) and judging."""

    training: Array
    training_labels: NDArray[np.int64]
    calibration: Array
    calibration_labels: NDArray[np.int64]
    judging: Array
    judging_labels: NDArray[np.int64]


@cache
def load_speech(path: Path) -> Speech:
    with np.load(path) as archive:
        speakers = np.unique(archive["speaker"], return_inverse=True)[1]
        return Speech(
            waves=archive["pcm16"].astype(np.float32) / np.float32(32768),
            digits=archive["digit"].astype(np.int64),
            speakers=speakers.astype(np.int64),
            lengths=archive["length"].astype(np.int64),
            judges=archive["index"] < JUDGING_INDEX,
        )


@cache
def load_keywords(path: Path) -> Keywords:
    """Log-mel features of all recordings, (N, 49, 32)."""
    speech = load_speech(path)
    energies = np.log(mel_energies(speech.waves) + FLOOR)
    trains = ~speech.judges
    features = (energies - energies[trains].mean()) / energies[trains].std()
    features = features.astype(np.float32)
    return Keywords(
        training=features[trains],
        training_labels=speech.digits[trains],
        calibration=features[speech.calibrating()],
        calibration_labels=speech.digits[speech.calibrating()],
        judging=features[speech.judges],
        judging_labels=speech.digits[speech.judges],
    )


def mel_energies(waves: Array, *, rate: int = RATE, window: int = WINDOW, hop: int = HOP, bands: int = BANDS) -> Array:
    """(N, samples) -> (N, frames, bands), power under triangles that are even on the mel scale."""
    frames = np.lib.stride_tricks.sliding_window_view(waves, window, axis=1)[:, ::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=-1)) ** 2
    return power.astype(np.float32) @ triangles(rate, window, bands)


def triangles(rate: int, window: int, bands: int) -> NDArray[np.float32]:
    """(window // 2 + 1, bands): mel(f) = 2595 log10(1 + f / 700)."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(window, 1 / rate)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def doubled(waves: Array) -> NDArray[np.float32]:
    """The same sound at twice the rate: zeros appended to the spectrum."""
    spectrum = np.fft.rfft(waves, axis=-1)
    samples = 2 * waves.shape[-1]
    return (2 * np.fft.irfft(spectrum, n=samples, axis=-1)).astype(np.float32)
