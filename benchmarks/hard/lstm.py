"""A keyword net with an LSTM (Hochreiter and Schmidhuber, 1997), whose states over log-mel frames are averaged."""

from __future__ import annotations

from torch import Tensor, nn

from hard.network import HardNetwork, Sources, share_right
from hard.speech import load_keywords
from hard.training import seeded, train


class Lstm(nn.Module):
    """Log-mel features (N, 49, 32) -> digits (N, 10)."""

    def __init__(self, width: int = 96, classes: int = 10) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(32, width, batch_first=True)
        self.classes = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        states, _ = self.recurrent(features)
        return self.classes(states.mean(1))


def load(sources: Sources) -> HardNetwork:
    words = load_keywords(sources.need_speech())
    module = train(
        seeded(Lstm), words.training, words.training_labels, cache=sources.cache, epochs=40, learning_rate=5e-3
    )
    return HardNetwork(
        name="lstm",
        module=module,
        calibration={"features": words.calibration},
        calibration_labels=words.calibration_labels,
        judging={"features": words.judging},
        labels=words.judging_labels,
        metric=share_right,
        measure="digits right, %",
    )
