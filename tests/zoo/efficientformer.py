"""EfficientFormer (Li et al., arXiv 2206.01191): pooling blocks on pictures, then attention on a sequence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


class Pooling(nn.Module):
    """The mean of the neighbours less the pixel, padding not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class Meta4D(nn.Module):
    def __init__(self, channels: int, layer_scale: float = 0.3) -> None:
        super().__init__()
        self.token_mixer = Pooling()
        self.mlp = nn.Sequential(
            conv_norm(channels, 4 * channels, activation=nn.GELU), conv_norm(4 * channels, channels, activation=None)
        )
        self.layer_scale_1 = nn.Parameter(layer_scale * torch.ones(channels))
        self.layer_scale_2 = nn.Parameter(layer_scale * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1.unsqueeze(-1).unsqueeze(-1) * self.token_mixer(x)
        return x + self.layer_scale_2.unsqueeze(-1).unsqueeze(-1) * self.mlp(x)


class Attention(nn.Module):
    """Keys narrower than values, and a bias for each distance between two pixels."""

    attention_bias_idxs: Tensor

    def __init__(self, channels: int, *, key: int, heads: int, side: int, ratio: int = 2) -> None:
        super().__init__()
        self.heads, self.key, self.value = heads, key, ratio * key
        self.scale = key**-0.5
        self.qkv = nn.Linear(channels, heads * (2 * key + self.value))
        self.proj = nn.Linear(heads * self.value, channels)
        places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        distance = (places[:, :, None] - places[:, None, :]).abs()
        self.register_buffer("attention_bias_idxs", distance[0] * side + distance[1])
        self.attention_biases = nn.Parameter(0.5 * torch.randn(heads, side * side))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, self.heads, -1).permute(0, 2, 1, 3)
        q, k, v = qkv.split([self.key, self.key, self.value], dim=3)
        scores = (q @ k.transpose(-2, -1)) * self.scale + self.attention_biases[:, self.attention_bias_idxs]
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2)
        return self.proj(mixed.reshape(batch, length, self.heads * self.value))


class Meta3D(nn.Module):
    def __init__(self, channels: int, side: int, layer_scale: float = 0.3) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.token_mixer = Attention(channels, key=16, heads=4, side=side)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.layer_scale_1 = nn.Parameter(layer_scale * torch.ones(channels))
        self.layer_scale_2 = nn.Parameter(layer_scale * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1.unsqueeze(0).unsqueeze(0) * self.token_mixer(self.norm1(x))
        return x + self.layer_scale_2.unsqueeze(0).unsqueeze(0) * self.mlp(self.norm2(x))


class EfficientFormer(nn.Module):
    """(N, 3, size, size) -> (N, classes)."""

    def __init__(self, *, size: int, widths: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        first, second, third = widths
        self.patch_embed = nn.Sequential(
            conv_norm(3, first // 2, 3, stride=2), conv_norm(first // 2, first, 3, stride=2)
        )
        self.pictures = nn.Sequential(
            Meta4D(first),
            conv_norm(first, second, 3, stride=2, activation=None),
            Meta4D(second),
            Meta4D(second),
            conv_norm(second, third, 3, stride=2, activation=None),
        )
        self.sequence = nn.Sequential(Meta3D(third, size // 16), Meta3D(third, size // 16))
        self.norm = nn.LayerNorm(third)
        self.head = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pictures(self.patch_embed(images))
        x = self.sequence(x.flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(-2))


def efficientformer(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(EfficientFormer(size=64, widths=(32, 64, 96), classes=100), images), (images,)
