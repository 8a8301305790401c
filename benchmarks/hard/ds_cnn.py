"""A keyword net of depthwise separable convolutions (Zhang et al., arXiv 1711.07128)."""

from __future__ import annotations

from torch import Tensor, nn

from hard.network import HardNetwork, Sources, share_right
from hard.speech import load_keywords
from hard.training import seeded, train


class DsCnn(nn.Module):
    """Log-mel features (N, 49, 32) -> digits (N, 10)."""

    def __init__(self, width: int = 48, blocks: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(1, width, (10, 4), 2, padding=(5, 1), bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        layers: list[nn.Module] = []
        for _ in range(blocks):
            layers += [
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.separable = nn.Sequential(*layers)
        self.classes = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.classes(self.separable(self.first(features.unsqueeze(1))).mean((2, 3)))


def load(sources: Sources) -> HardNetwork:
    words = load_keywords(sources.need_speech())
    module = train(seeded(DsCnn), words.training, words.training_labels, cache=sources.cache, epochs=24)
    return HardNetwork(
        name="ds_cnn",
        module=module,
        calibration={"features": words.calibration},
        calibration_labels=words.calibration_labels,
        judging={"features": words.judging},
        labels=words.judging_labels,
        metric=share_right,
        measure="digits right, %",
    )
