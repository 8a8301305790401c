"""A residual network as for CIFAR (He et al., arXiv 1512.03385, section 4.2), three times as wide, trained plainly.

Needs torch and numpy only: the peers' processes use it too.
"""

from __future__ import annotations

from math import cos, pi

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (48, 96, 192)
BLOCKS = 3
BATCH = 64
SIZE = 32


class Block(nn.Module):
    """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride); a projection where the shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.short: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.short(x))


class ResNet20(nn.Module):
    """(N, 3, 32, 32) float32, 0 to 1 -> (N, 10) logits. 20 layers deep."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        blocks, before = [], widths[0]
        for stage, width in enumerate(widths):
            for number in range(BLOCKS):
                blocks.append(Block(before, width, 2 if stage and not number else 1))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.classes = nn.Linear(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        y = self.blocks(torch.relu(self.norm(self.stem(images))))
        return self.classes(y.mean((2, 3)))


def pictures(digits: np.ndarray) -> np.ndarray:
    """Images (N, 28, 28) uint8 as (N, 3, 32, 32) float32, 0 to 1."""
    padded = np.pad(digits, ((0, 0), (2, 2), (2, 2))).astype(np.float32) / np.float32(255)
    return np.repeat(padded[:, None], 3, axis=1)


def learn(
    module: nn.Module, images: np.ndarray, labels: np.ndarray, *, epochs: int, rate: float, seed: int = 0
) -> None:  # fmt: skip
    """Adam on cross-entropy, the rate along half a cosine; ends in evaluation mode. Deterministic for a seed."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    steps, step = epochs * -(-len(images) // BATCH), 0
    module.train()
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(images))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            for group in optimizer.param_groups:
                group["lr"] = rate * (0.5 + 0.5 * cos(pi * step / steps))
            optimizer.zero_grad()
            scores = module(torch.from_numpy(images[chosen]))
            F.cross_entropy(scores, torch.from_numpy(labels[chosen])).backward()
            optimizer.step()
            step += 1
    module.eval()


def accuracy(module: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Percent of right classes."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), 250):
            found.append(module(torch.from_numpy(images[start : start + 250])).argmax(1).numpy())
    return float(100 * np.mean(np.concatenate(found) == labels))
