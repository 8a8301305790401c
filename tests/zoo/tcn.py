"""TCN (Bai et al., arXiv 1803.01271): dilated convolutions that see the past only, cut off behind or padded before."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import signals
from tests.zoo.networks import kept_in_scale


class CausalConv1d(nn.Conv1d):
    """Padded on the left, by what the kernel reaches back."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class Chomp1d(nn.Module):
    """Takes off what a convolution padded on both sides saw of the future."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size].contiguous()


class TemporalBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, kernel: int, dilation: int) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.conv1 = nn.Conv1d(inputs, outputs, kernel, padding=reach, dilation=dilation)
        self.chomp1 = Chomp1d(reach)
        self.conv2 = CausalConv1d(outputs, outputs, kernel, dilation=dilation)
        self.dropout = nn.Dropout(0.2)
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None
        self.relu = nn.ReLU()
        self.last_layer = [self.conv2]

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.relu(self.chomp1(self.conv1(x))))
        y = self.dropout(self.relu(self.conv2(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class TCN(nn.Module):
    """(N, channels, length) -> (N, outputs), from the last moment."""

    def __init__(self, channels: int, widths: tuple[int, ...], *, kernel: int, outputs: int) -> None:
        super().__init__()
        blocks = []
        for level, width in enumerate(widths):
            inputs = widths[level - 1] if level else channels
            blocks.append(TemporalBlock(inputs, width, kernel=kernel, dilation=2**level))
        self.network = nn.Sequential(*blocks)
        self.linear = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.linear(self.network(x)[:, :, -1]), dim=1)


def tcn(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return kept_in_scale(TCN(6, (24, 24, 32, 32), kernel=5, outputs=10), last=0.3), (signals(count, 6, 96, level=1.0),)
