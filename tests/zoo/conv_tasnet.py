"""Conv-TasNet (Luo and Mesgarani, arXiv 1809.07454): two voices told apart by masks on a learned transform."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.inputs import signals


class ConvBlock(nn.Module):
    """1x1, depthwise dilated, 1x1; PReLU and norms over all of a sample; a residual and a skip path."""

    def __init__(self, width: int, hidden: int, *, dilation: int) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(
            nn.Conv1d(width, hidden, 1),
            nn.PReLU(),
            nn.GroupNorm(1, hidden, eps=1e-8),
            nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden),
            nn.PReLU(),
            nn.GroupNorm(1, hidden, eps=1e-8),
        )
        self.res_out = nn.Conv1d(hidden, width, 1)
        self.skip_out = nn.Conv1d(hidden, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.conv_layers(x)
        return self.res_out(feature), self.skip_out(feature)


class ConvTasNet(nn.Module):
    """(N, samples) -> (N, voices, samples)."""

    def __init__(
        self, *, voices: int = 2, filters: int = 64, width: int = 32, kernel: int = 16, blocks: int = 4
    ) -> None:
        super().__init__()
        self.voices, self.filters = voices, filters
        self.encoder = nn.Conv1d(1, filters, kernel, stride=kernel // 2, padding=kernel // 2, bias=False)
        self.input_norm = nn.GroupNorm(1, filters, eps=1e-8)
        self.input_conv = nn.Conv1d(filters, width, 1)
        self.blocks = nn.ModuleList(ConvBlock(width, 2 * width, dilation=2**index) for index in range(blocks))
        self.output_prelu = nn.PReLU()
        self.output_conv = nn.Conv1d(width, filters * voices, 1)
        self.decoder = nn.ConvTranspose1d(filters, 1, kernel, stride=kernel // 2, padding=kernel // 2, bias=False)

    def masks(self, features: Tensor) -> Tensor:
        x, output = self.input_conv(self.input_norm(features)), torch.zeros(())
        for block in self.blocks:
            residual, skip = block(x)
            x = x + residual
            output = output + skip
        output = torch.sigmoid(self.output_conv(self.output_prelu(output)))
        return output.view(features.shape[0], self.voices, self.filters, -1)

    def forward(self, mixture: Tensor) -> Tensor:
        batch = mixture.shape[0]
        features = self.encoder(mixture.unsqueeze(1))
        masked = self.masks(features) * features.unsqueeze(1)
        masked = masked.view(batch * self.voices, self.filters, -1)
        return self.decoder(masked).view(batch, self.voices, -1)


def conv_tasnet(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = ConvTasNet()
    nn.init.normal_(module.encoder.weight, std=0.25)
    nn.init.normal_(module.decoder.weight, std=0.1)
    return module.eval(), (signals(count, 1, 512)[:, 0],)
