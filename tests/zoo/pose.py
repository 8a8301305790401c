"""Poses from heatmaps (Xiao et al., arXiv 1804.06208; soft-argmax of Sun et al., arXiv 1711.08229)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import centred, pictures, settled
from tests.zoo.resnet18 import BasicBlock


class PoseNet(nn.Module):
    """(N, 3, size, size) -> heatmaps (N, joints, size / 4, size / 4)."""

    def __init__(self, *, width: int, joints: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            conv_norm(3, width, 3, stride=2),
            BasicBlock(width, 2 * width, 2),
            BasicBlock(2 * width, 4 * width, 2),
            BasicBlock(4 * width, 4 * width, 2),
        )
        layers: list[nn.Module] = []
        for inputs, outputs in ((4 * width, 2 * width), (2 * width, 2 * width)):
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(2 * width, joints, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(self.backbone(images)))


class ArgmaxPose(PoseNet):
    """-> {"scores": (N, joints), "places": (N, joints) int64}: the highest pixel of each heatmap and its index."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        heatmaps = super().forward(images).flatten(2)
        return {"scores": heatmaps.amax(dim=2), "places": torch.argmax(heatmaps, dim=2)}


class SoftArgmaxPose(PoseNet):
    """-> (N, joints, 2): the mean place (x, y) in [0, 1] under each heatmap's exponentials."""

    def forward(self, images: Tensor) -> Tensor:
        heatmaps = super().forward(images)
        _, _, height, width = heatmaps.shape
        highest = heatmaps.amax(dim=(2, 3), keepdim=True)
        weights = torch.exp(heatmaps - highest)
        weights = weights / weights.sum(dim=(2, 3), keepdim=True)
        xs = torch.linspace(0, 1, width, device=images.device)
        ys = torch.linspace(0, 1, height, device=images.device)
        x = (weights.sum(dim=2) * xs).sum(dim=-1)
        y = (weights.sum(dim=3) * ys).sum(dim=-1)
        return torch.stack((x, y), dim=-1)


def _trained(module: PoseNet, images: np.ndarray, spread: float) -> PoseNet:
    """Heatmaps with peaks, as training makes them."""
    return centred(settled(module, images), module.final_layer, images, spread=spread)


def pose_argmax(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return _trained(ArgmaxPose(width=16, joints=8), images, 2.0), (images,)


def pose_soft_argmax(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return _trained(SoftArgmaxPose(width=16, joints=8), images, 4.0), (images,)
