"""A residual keyword net after res15 (Tang and Lin, arXiv 1710.10361): what a block gives is added to a stream that
nothing normalizes, so that it grows with depth; the batch norm stands behind the addition, before a padded convolution,
where it folds into no neighbour."""

from __future__ import annotations

from torch import Tensor, nn

from hard.network import HardNetwork, Sources, share_right
from hard.speech import load_keywords
from hard.training import seeded, train


class Residual(nn.Module):
    """Log-mel features (N, 49, 32) -> digits (N, 10)."""

    def __init__(self, width: int = 32, blocks: int = 5, classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.pool = nn.AvgPool2d(2)
        self.relu = nn.ReLU()
        layers = 2 * blocks
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=2 ** (i // 3), dilation=2 ** (i // 3), bias=False) for i in range(layers)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for _ in range(layers))
        self.classes = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        stream = x = self.pool(self.relu(self.first(features.unsqueeze(1))))
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            y = self.relu(convolution(x))
            if index % 2:
                y = stream = y + stream
            x = norm(y)
        return self.classes(x.mean((2, 3)))


def load(sources: Sources) -> HardNetwork:
    words = load_keywords(sources.need_speech())
    # at such a rate some channels die: their variance is all but zero, and what the norm multiplies them by is large
    module = train(
        seeded(Residual), words.training, words.training_labels, cache=sources.cache, epochs=8, learning_rate=2e-2,
        weight_decay=5e-2,
    )  # fmt: skip
    return HardNetwork(
        name="residual",
        module=module,
        calibration={"features": words.calibration},
        calibration_labels=words.calibration_labels,
        judging={"features": words.judging},
        labels=words.judging_labels,
        metric=share_right,
        measure="digits right, %",
    )
