"""MobileViT (Mehta and Rastegari, arXiv 2110.02178): attention between the pixels at the same place of 2x2 patches."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.layers import conv_norm
from tests.zoo.networks import pictures, settled


class MV2Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        hidden = 2 * inputs
        self.conv = nn.Sequential(
            conv_norm(inputs, hidden, activation=nn.SiLU),
            conv_norm(hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.SiLU),
            conv_norm(hidden, outputs, activation=None),
        )
        self.use_res_connect = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class Attention(nn.Module):
    """Written out: scores, softmax, weighted sum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), self.heads, self.head_width).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split_heads(self.query(x)), self.split_heads(self.key(x)), self.split_heads(self.value(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.head_width)
        mixed = torch.matmul(torch.softmax(scores, dim=-1), v).permute(0, 2, 1, 3).contiguous()
        return self.output(mixed.view(x.size()))


class TransformerLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.pre_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.pre_attention(x))
        return x + self.feed_forward(x)


class MobileViTBlock(nn.Module):
    def __init__(self, channels: int, width: int, depth: int, patch: int = 2) -> None:
        super().__init__()
        self.patch = patch
        self.local_rep = nn.Sequential(
            conv_norm(channels, channels, 3, activation=nn.SiLU), nn.Conv2d(channels, width, 1, bias=False)
        )
        self.global_rep = nn.Sequential(*[TransformerLayer(width, 4) for _ in range(depth)], nn.LayerNorm(width))
        self.conv_proj = conv_norm(width, channels, activation=nn.SiLU)
        self.fusion = conv_norm(2 * channels, channels, 3, activation=nn.SiLU)

    def unfolding(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N * pixels of a patch, patches, C)."""
        batch, channels, height, width = x.shape
        p = self.patch
        x = x.reshape(batch * channels * (height // p), p, width // p, p).transpose(1, 2)
        x = x.reshape(batch, channels, (height // p) * (width // p), p * p).transpose(1, 3)
        return x.reshape(batch * p * p, (height // p) * (width // p), channels)

    def folding(self, patches: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        batch, channels, height, width = shape
        p = self.patch
        x = patches.contiguous().view(batch, p * p, (height // p) * (width // p), channels).transpose(1, 3)
        x = x.reshape(batch * channels * (height // p), width // p, p, p).transpose(1, 2)
        return x.reshape(batch, channels, height, width)

    def forward(self, x: Tensor) -> Tensor:
        local = self.local_rep(x)
        batch, channels, height, width = local.shape
        mixed = self.folding(self.global_rep(self.unfolding(local)), (batch, channels, height, width))
        return self.fusion(torch.cat((x, self.conv_proj(mixed)), dim=1))


class MobileViT(nn.Module):
    """(N, 3, H, W) -> (N, classes)."""

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3, stride=2, activation=nn.SiLU)
        self.stages = nn.Sequential(
            MV2Block(16, 24, stride=2),
            MV2Block(24, 24),
            MV2Block(24, 32, stride=2),
            MobileViTBlock(32, 48, depth=2),
            MV2Block(32, 48, stride=2),
            MobileViTBlock(48, 64, depth=1),
        )
        self.head = conv_norm(48, 160, activation=nn.SiLU)
        self.classifier = nn.Linear(160, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.head(self.stages(self.stem(images)))
        return self.classifier(torch.mean(x, dim=[-2, -1], keepdim=False))


def mobilevit(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    return settled(MobileViT(classes=100), images), (images,)
