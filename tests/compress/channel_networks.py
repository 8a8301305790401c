"""Networks in miniature, one for each way that channels can depend on each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.engine.tracing.tracer import trace
from toolchain.graph import Graph

IMAGE = (1, 3, 8, 8)


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.short = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.short(x))


class Inverted(nn.Module):
    """MobileNet's block: expand, depthwise, project, add."""

    def __init__(self, channels: int, multiplier: int = 1) -> None:
        super().__init__()
        wide = 2 * channels
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide * multiplier, 3, padding=1, groups=wide),
            nn.BatchNorm2d(wide * multiplier),
            nn.ReLU6(),
        )
        self.project = nn.Sequential(nn.Conv2d(wide * multiplier, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.depthwise(self.expand(x)))


class Branches(nn.Module):
    """Two branches concatenated, then read."""

    def __init__(self, inputs: int, left: int, right: int, outputs: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(inputs, left, 1)
        self.right = nn.Conv2d(inputs, right, 3, padding=1)
        self.norm = nn.BatchNorm2d(left + right)
        self.join = nn.Conv2d(left + right, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.left(x), torch.relu(self.right(x))], 1)
        return self.join(self.norm(both))


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 4, 1)
        self.excite = nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.excite(y))


class Halves(nn.Module):
    """Channels are split in two, one half goes through a layer, both are joined again (as in CSP blocks)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return torch.cat([left, torch.relu(self.conv(right))], 1)


class Scaled(nn.Module):
    """A learned constant for each channel, one for the tensor, one for each pixel."""

    def __init__(self, channels: int, size: int = 8) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(channels, 1, 1))
        self.offset = nn.Parameter(torch.randn(1, channels, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale * 0.5 + self.offset


class FlattenHead(nn.Module):
    def __init__(self, channels: int, size: int = 8) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels * size * size, 12)
        self.classes = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(torch.relu(self.hidden(x.flatten(1))))


class PooledHead(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classes = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class ChannelsLastHead(nn.Module):
    """Pixels as a sequence: permute, linear on the last axis, mean over the pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, 12)
        self.classes = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        sequence = x.flatten(2).transpose(1, 2)
        return self.classes(torch.relu(self.hidden(sequence)).mean(1))


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def resnet() -> nn.Module:
    return nn.Sequential(conv(3, 8), Residual(8, 8), Residual(8, 16), Residual(16, 16), PooledHead(16))


def mobilenet() -> nn.Module:
    return nn.Sequential(conv(3, 8), Inverted(8), Inverted(8, multiplier=2), conv(8, 16), PooledHead(16))


def random_network(seed: int) -> nn.Module:
    """Four random blocks and a random head."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    blocks: list[nn.Module] = [conv(3, 8)]
    channels = 8
    for kind in random.integers(8, size=4):
        block, channels = random_block(int(kind), channels, random)
        blocks.append(block)
    head = [FlattenHead, PooledHead, ChannelsLastHead][int(random.integers(3))]
    return nn.Sequential(*blocks, head(channels))


def random_block(kind: int, channels: int, random: np.random.Generator) -> tuple[nn.Module, int]:
    """A block for `channels`, and how many come out of it."""
    wider = int(random.choice([8, 12, 16]))
    few = int(random.choice([2, 4]))
    wide: list[Callable[[], nn.Module]] = [
        lambda: conv(channels, wider),
        lambda: Residual(channels, wider),
        lambda: Branches(channels, 4, 6, wider),
        lambda: nn.Sequential(conv(channels, channels, groups=few), conv(channels, wider)),
    ]
    same: list[Callable[[], nn.Module]] = [
        lambda: Inverted(channels, multiplier=few // 2),
        lambda: Gate(channels),
        lambda: Halves(channels),
        lambda: Scaled(channels),
    ]
    return (wide[kind](), wider) if kind < len(wide) else (same[kind - len(wide)](), channels)


def with_statistics(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as after a training: no statistic, scale or offset at its default."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low in (
                (layer.running_mean, -1.0),
                (layer.running_var, 0.5),
                (layer.weight, 0.5),
                (layer.bias, -1.0),
            ):
                tensor.data.uniform_(low, low + 1.5, generator=generator)
    return module.eval()


def traced(module: nn.Module, shape: tuple[int, ...] = IMAGE) -> Graph:
    return trace(with_statistics(module), (np.zeros(shape, np.float32),))


def images(count: int = 4, shape: tuple[int, ...] = IMAGE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *shape[1:])).astype(np.float32)
