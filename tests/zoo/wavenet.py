"""WaveNet (van den Oord et al., arXiv 1609.03499): gated, dilated and causal, skips gathered from every layer."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import signals
from tests.zoo.networks import kept_in_scale


class ResidualLayer(nn.Module):
    def __init__(self, channels: int, skips: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.filter_gate = nn.Conv1d(channels, 2 * channels, 2, dilation=dilation)
        self.residual = nn.Conv1d(channels, channels, 1)
        self.skip = nn.Conv1d(channels, skips, 1)
        self.last_layer = [self.residual]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = self.filter_gate(F.pad(x, (self.dilation, 0)))
        wave, gate = torch.chunk(both, 2, dim=1)
        z = torch.tanh(wave) * torch.sigmoid(gate)
        return x + self.residual(z), self.skip(z)


class WaveNet(nn.Module):
    """(N, 1, samples) -> logits of the next sample (N, levels, samples)."""

    def __init__(self, *, channels: int, skips: int, layers: int, levels: int) -> None:
        super().__init__()
        self.causal = nn.Conv1d(1, channels, 1)
        self.layers = nn.ModuleList(ResidualLayer(channels, skips, 2**index) for index in range(layers))
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(skips, skips, 1), nn.ReLU(), nn.Conv1d(skips, levels, 1))

    def forward(self, waveform: Tensor) -> Tensor:
        x, skips = self.causal(waveform), []
        for layer in self.layers:
            x, skip = layer(x)
            skips.append(skip)
        return self.end(torch.stack(skips).sum(dim=0))


def wavenet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = WaveNet(channels=24, skips=32, layers=6, levels=32)
    return kept_in_scale(module, slope=1.0, last=0.3), (signals(count, 1, 256),)
