"""GCN (Kipf and Welling, arXiv 1609.02907) on graphs of one size: features mixed along normalised edges."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import features
from tests.zoo.networks import kept_in_scale


class GraphConvolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.bias = nn.Parameter(0.1 * torch.randn(outputs))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return torch.matmul(edges, self.linear(x)) + self.bias


class GCN(nn.Module):
    """Node features (N, nodes, C) and edges (N, nodes, nodes) bool -> (N, classes)."""

    def __init__(self, *, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.gc1 = GraphConvolution(inputs, hidden)
        self.gc2 = GraphConvolution(hidden, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        adjacency = edges.float() + torch.eye(edges.shape[-1])
        scale = adjacency.sum(-1).pow(-0.5)
        adjacency = scale.unsqueeze(-1) * adjacency * scale.unsqueeze(-2)
        x = F.relu(self.gc1(x, adjacency))
        x = F.relu(self.gc2(x, adjacency))
        return self.head(x.mean(dim=1))


def gcn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    nodes = 20
    upper = np.triu(features(count, nodes, nodes, seed=1) > 1.0, 1)
    edges = upper | upper.transpose(0, 2, 1)
    return kept_in_scale(GCN(inputs=12, hidden=32, classes=5)), (features(count, nodes, 12), edges)
