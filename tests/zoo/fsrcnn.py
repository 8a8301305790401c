"""FSRCNN (Dong et al., arXiv 1608.00367): shrink, map, expand with PReLU, and one 9x9 transposed convolution."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tests.zoo.networks import kept_in_scale, pictures


class FSRCNN(nn.Module):
    """(N, 1, H, W) -> (N, 1, scale * H, scale * W)."""

    def __init__(self, *, scale: int, width: int = 32, shrunk: int = 8, maps: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, width, 5, padding=2), nn.PReLU(width)]
        layers += [nn.Conv2d(width, shrunk, 1), nn.PReLU(shrunk)]
        for _ in range(maps):
            layers += [nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.PReLU(shrunk)]
        layers += [nn.Conv2d(shrunk, width, 1), nn.PReLU(width)]
        self.layers = nn.Sequential(*layers)
        self.last_part = nn.ConvTranspose2d(width, 1, 9, stride=scale, padding=4, output_padding=scale - 1)

    def forward(self, luminance: Tensor) -> Tensor:
        return self.last_part(self.layers(luminance))


def fsrcnn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return kept_in_scale(FSRCNN(scale=2), slope=0.25), (pictures(count, 1, 32),)
