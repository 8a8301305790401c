"""TabNet (Arik and Pfister, arXiv 1908.07442): steps that each attend to some columns; softmax stands for sparsemax."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.inputs import features
from tests.zoo.networks import settled


class GLULayer(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, 2 * outputs, bias=False)
        self.bn = nn.BatchNorm1d(2 * outputs)
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.fc(x))
        return torch.mul(x[:, : self.outputs], torch.sigmoid(x[:, self.outputs :]))


class FeatureTransformer(nn.Module):
    """Two layers, the second added and scaled by sqrt(1/2), so that variance is kept."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = GLULayer(inputs, outputs)
        self.second = GLULayer(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.add(x, self.second(x)) * math.sqrt(0.5)


class TabNet(nn.Module):
    """(N, columns) -> (logits (N, classes), how much each column counted (N, columns))."""

    def __init__(self, *, columns: int, decision: int, attention: int, steps: int, classes: int) -> None:
        super().__init__()
        self.decision, self.gamma = decision, 1.3
        self.initial_bn = nn.BatchNorm1d(columns)
        self.transformers = nn.ModuleList(FeatureTransformer(columns, decision + attention) for _ in range(steps + 1))
        self.attentions = nn.ModuleList(
            nn.Sequential(nn.Linear(attention, columns, bias=False), nn.BatchNorm1d(columns)) for _ in range(steps)
        )
        self.final_mapping = nn.Linear(decision, classes, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.initial_bn(x)
        prior, total, explained = torch.ones_like(x), torch.zeros(1), torch.zeros_like(x)
        attended = self.transformers[0](x)[:, self.decision :]
        for attention, transformer in zip(self.attentions, self.transformers[1:], strict=True):
            mask = torch.softmax(torch.mul(attention(attended), prior), dim=-1)
            prior = torch.mul(self.gamma - mask, prior)
            out = transformer(torch.mul(mask, x))
            decided = torch.relu(out[:, : self.decision])
            total = total + decided
            attended = out[:, self.decision :]
            explained = explained + mask * decided.sum(dim=1, keepdim=True)
        return self.final_mapping(total), explained


def tabnet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    rows = features(count, 24)
    return settled(TabNet(columns=24, decision=16, attention=16, steps=3, classes=5), rows), (rows,)
