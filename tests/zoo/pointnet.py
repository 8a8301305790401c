"""PointNet (Qi et al., arXiv 1612.00593): points turned upright by a learned matrix, one network for all, a maximum."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import features
from tests.zoo.networks import settled


def shared(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU())


class TNet(nn.Module):
    """A matrix of k x k from the points themselves, near the identity."""

    def __init__(self, k: int, width: int) -> None:
        super().__init__()
        self.k = k
        self.points = nn.Sequential(shared(k, width), shared(width, 2 * width))
        self.fc1 = nn.Linear(2 * width, width)
        self.bn = nn.BatchNorm1d(width)
        self.fc2 = nn.Linear(width, k * k)
        nn.init.normal_(self.fc2.weight, std=0.05)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        pooled = torch.max(self.points(x), 2, keepdim=True)[0].view(batch, -1)
        matrix = self.fc2(F.relu(self.bn(self.fc1(pooled))))
        identity = torch.eye(self.k).flatten().view(1, self.k * self.k).repeat(batch, 1)
        return (matrix + identity).view(-1, self.k, self.k)


class PointNet(nn.Module):
    """(N, 3, points) -> (log probabilities (N, classes), the transform (N, 3, 3))."""

    def __init__(self, *, width: int, classes: int) -> None:
        super().__init__()
        self.input_transform = TNet(3, width)
        self.feature_transform = TNet(width, width)
        self.first = shared(3, width)
        self.second = nn.Sequential(shared(width, 2 * width), shared(2 * width, 4 * width))
        self.head = nn.Sequential(
            nn.Linear(4 * width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU(), nn.Linear(2 * width, classes)
        )

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        transform = self.input_transform(points)
        x = torch.bmm(points.transpose(2, 1), transform).transpose(2, 1)
        x = self.first(x)
        x = torch.bmm(x.transpose(2, 1), self.feature_transform(x)).transpose(2, 1)
        x = torch.max(self.second(x), dim=2).values
        return F.log_softmax(self.head(x), dim=1), transform


def pointnet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    points = features(count, 3, 256) * features(count, 3, 1, seed=1)
    return settled(PointNet(width=32, classes=10), points), (points,)
