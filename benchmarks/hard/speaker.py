"""The speaker encoder that the package Resemblyzer (Apache-2.0) carries: three LSTM layers, trained end to end for
verification (Wan et al., arXiv 1710.10467), on recordings of spoken digits.

One sample is 1.6 s of one voice: recordings of several digits in a row, at 16 kHz, as 160 frames of 40 mel energies
(power, not its logarithm: that is what these weights were trained on).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hard.network import Array, HardNetwork, Sources
from hard.speech import Speech, doubled, load_speech, mel_energies
from hard.verification import share_verified

FRAMES, BANDS, WIDTH = 160, 40, 256
RATE, WINDOW, HOP = 16000, 400, 160
LOUDNESS = 10 ** (-30 / 20)
CALIBRATION_COUNT, JUDGING_COUNT = 120, 240


class Speaker(nn.Module):
    """Mel energies (N, 160, 40) -> unit embeddings (N, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, WIDTH, 3, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, energies: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(energies)
        embedding = torch.relu(self.linear(hidden[-1]))
        return embedding / embedding.norm(dim=1, keepdim=True)


def load(sources: Sources) -> HardNetwork:
    speech = load_speech(sources.need_speech())
    saved = torch.load(sources.need_weights("resemblyzer/pretrained.pt"), map_location="cpu", weights_only=True)
    module = Speaker()
    module.load_state_dict({name: value for name, value in saved["model_state"].items() if "similarity" not in name})
    calibration, known = utterances(speech, np.flatnonzero(~speech.judges), CALIBRATION_COUNT)
    judging, speakers = utterances(speech, np.flatnonzero(speech.judges), JUDGING_COUNT)
    return HardNetwork(
        name="speaker",
        module=module.eval(),
        calibration={"energies": calibration},
        calibration_labels=known,
        judging={"energies": judging},
        labels=speakers,
        metric=share_verified,
        measure="100 - equal error rate, %",
    )


def utterances(speech: Speech, numbers: Array, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`count` samples (count, 160, 40) and who speaks, each of recordings of its own from among `numbers`."""
    random = np.random.default_rng(1)
    length = (FRAMES - 1) * HOP // 2 + WINDOW // 2
    left = {who: list(random.permutation(numbers[speech.speakers[numbers] == who])) for who in range(6)}
    waves, speakers = [], []
    for index in range(count):
        who = index % 6
        wave = np.zeros(0, np.float32)
        while len(wave) < length:
            number = left[who].pop()
            left[who].insert(0, number)  # after all others have had their turn
            wave = np.concatenate([wave, speech.waves[number, : speech.lengths[number]]])
        wave = wave[:length]
        waves.append(wave * max(1.0, LOUDNESS / float(np.sqrt(np.mean(wave**2)) + 1e-9)))
        speakers.append(who)
    energies = mel_energies(doubled(np.stack(waves)), rate=RATE, window=WINDOW, hop=HOP, bands=BANDS)
    # Slaney's triangles have unit area
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), BANDS + 2) / 2595) - 1)
    return (energies * (2 / (edges[2:] - edges[:-2]))).astype(np.float32), np.array(speakers, np.int64)
