"""A small speaker encoder: two LSTM layers trained to tell six voices apart, judged on recordings it never heard."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hard.network import HardNetwork, Sources
from hard.speech import load_keywords, load_speech
from hard.training import seeded, train
from hard.verification import share_verified

SHARPNESS = 12.0


class SpeakerSmall(nn.Module):
    """Log-mel features (N, 49, 32) -> unit embeddings (N, 64); while training, scores of six speakers."""

    def __init__(self, width: int = 64, speakers: int = 6) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(32, width, 2, batch_first=True)
        self.embedding = nn.Linear(width, width)
        self.speakers = nn.Parameter(torch.randn(speakers, width))

    def forward(self, features: Tensor) -> Tensor:
        states, _ = self.recurrent(features)
        embedding = self.embedding(states.mean(1))
        embedding = embedding / embedding.norm(dim=1, keepdim=True)
        if self.training:
            return SHARPNESS * embedding @ functional.normalize(self.speakers, dim=1).T
        return embedding


def load(sources: Sources) -> HardNetwork:
    path = sources.need_speech()
    speech, words = load_speech(path), load_keywords(path)
    voices = speech.speakers[~speech.judges]
    module = train(seeded(SpeakerSmall), words.training, voices, cache=sources.cache, epochs=20, learning_rate=4e-3)
    return HardNetwork(
        name="speaker_small",
        module=module,
        calibration={"features": words.calibration},
        calibration_labels=speech.speakers[speech.calibrating()],
        judging={"features": words.judging},
        labels=speech.speakers[speech.judges],
        metric=share_verified,
        measure="100 - equal error rate, %",
    )
