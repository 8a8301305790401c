"""GhostNet (Han et al., arXiv 1911.11907): half the channels are made of the others by cheap depthwise convolutions."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.mobilenet_v2 import rounded
from tests.zoo.networks import centred, pictures, settled

# kernel, expanded channels, channels, squeeze and excitation, stride
ROWS = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (5, 672, 160, True, 2),
)


class GhostModule(nn.Module):
    def __init__(self, inputs: int, outputs: int, activation: type[nn.Module] | None = nn.ReLU) -> None:
        super().__init__()
        self.outputs = outputs
        own = -(-outputs // 2)
        self.primary_conv = conv_norm(inputs, own, activation=activation)
        self.cheap_operation = conv_norm(own, own, 3, groups=own, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary_conv(x)
        out = torch.cat([x1, self.cheap_operation(x1)], dim=1)
        return out[:, : self.outputs, :, :]


class HardSigmoidExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, rounded(channels / 4), 1)
        self.conv_expand = nn.Conv2d(rounded(channels / 4), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv_expand(F.relu(self.conv_reduce(F.adaptive_avg_pool2d(x, 1))))
        return x * (F.relu6(gate + 3.0) / 6.0)


class GhostBottleneck(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, kernel: int, excited: bool, stride: int) -> None:
        super().__init__()
        self.ghost1 = GhostModule(inputs, hidden)
        down = conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden, activation=None)
        self.conv_dw = down if stride > 1 else nn.Identity()
        self.se = HardSigmoidExcitation(hidden) if excited else nn.Identity()
        self.ghost2 = GhostModule(hidden, outputs, activation=None)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                conv_norm(inputs, inputs, kernel, stride=stride, groups=inputs, activation=None),
                conv_norm(inputs, outputs, activation=None),
            )
        self.last_norm = [self.ghost2.primary_conv[1], self.ghost2.cheap_operation[1]]

    def forward(self, x: Tensor) -> Tensor:
        return self.ghost2(self.se(self.conv_dw(self.ghost1(x)))) + self.shortcut(x)


class GhostNet(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, width: float, classes: int) -> None:
        super().__init__()
        channels = rounded(16 * width)
        self.stem = conv_norm(3, channels, 3, stride=2)
        blocks = []
        for kernel, wide, out, excited, stride in ROWS:
            hidden, outputs = rounded(wide * width), rounded(out * width)
            blocks.append(GhostBottleneck(channels, hidden, outputs, kernel, excited, stride))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = nn.Conv2d(channels, 256, 1)
        self.classifier = nn.Linear(256, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.blocks(self.stem(images)), 1)
        return self.classifier(F.relu(self.conv_head(x)).squeeze(-1).squeeze(-1))


def ghostnet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    module = settled(GhostNet(width=0.5, classes=100), images, offset=0.5)
    return centred(module, module.conv_head, images), (images,)
