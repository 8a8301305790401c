"""MobileNetV2 (Sandler et al., arXiv 1801.04381, table 2), with its real blocks, in any width."""

from __future__ import annotations

from torch import Tensor, nn

# expansion, channels, repeats, stride of the first
ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def rounded(channels: float) -> int:
    """To a multiple of 8, at least 8, and never more than a tenth below."""
    whole = max(8, int(channels + 4) // 8 * 8)
    return whole + 8 if whole < 0.9 * channels else whole


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [conv(inputs, hidden, 1)] if expansion != 1 else []
        layers += [conv(hidden, hidden, 3, stride=stride, groups=hidden)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.is_residual = stride == 1 and inputs == outputs
        self.last_norm = [self.layers[-1]] if self.is_residual else []  # a list is no submodule

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class MobileNetV2(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        channels = rounded(32 * width)
        blocks: list[nn.Module] = [conv(3, channels, 3, stride=2)]
        for expansion, wide, repeats, stride in ROWS:
            outputs = rounded(wide * width)
            for index in range(repeats):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, stride=step, expansion=expansion))
                channels = outputs
        last = rounded(1280 * max(width, 1.0))
        self.features = nn.Sequential(*blocks, conv(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))
