"""Style transfer (Johnson et al., arXiv 1603.08155): instance norms, reflected borders, nearest upsampling."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.networks import kept_in_scale, pictures


class ConvLayer(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, upsample: int | None = None) -> None:
        super().__init__()
        self.upsample = upsample
        self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample:
            x = F.interpolate(x, mode="nearest", scale_factor=self.upsample)
        return self.conv2d(self.reflection_pad(x))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels, 3)
        self.in1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = ConvLayer(channels, channels, 3)
        self.in2 = nn.InstanceNorm2d(channels, affine=True)
        nn.init.constant_(self.in2.weight, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.in2(self.conv2(F.relu(self.in1(self.conv1(x))))) + x


class TransformerNet(nn.Module):
    """(N, 3, H, W) -> (N, 3, H, W)."""

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        norms = [nn.InstanceNorm2d(w, affine=True) for w in (width, 2 * width, 4 * width, 2 * width, width)]
        self.layers = nn.Sequential(
            *(ConvLayer(3, width, 9), norms[0], nn.ReLU()),
            *(ConvLayer(width, 2 * width, 3, stride=2), norms[1], nn.ReLU()),
            *(ConvLayer(2 * width, 4 * width, 3, stride=2), norms[2], nn.ReLU()),
            *[ResidualBlock(4 * width) for _ in range(blocks)],
            *(ConvLayer(4 * width, 2 * width, 3, upsample=2), norms[3], nn.ReLU()),
            *(ConvLayer(2 * width, width, 3, upsample=2), norms[4], nn.ReLU()),
            ConvLayer(width, 3, 9),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def style_transfer(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return kept_in_scale(TransformerNet(width=8, blocks=2)), (pictures(count, 3, 48),)
