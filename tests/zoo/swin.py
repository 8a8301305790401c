"""Swin Transformer (Liu et al., arXiv 2103.14030): attention in windows, shifted by half a window every other block."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.networks import pictures


def window_partition(x: Tensor, window: int) -> Tensor:
    """(N, H, W, C) -> (N * windows, window, window, C)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window, window, channels)


def window_reverse(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """(N * windows, window, window, C) -> (N, H, W, C)."""
    batch = windows.shape[0] // (height * width // window // window)
    x = windows.view(batch, height // window, width // window, window, window, -1)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(batch, height, width, -1)


class WindowAttention(nn.Module):
    """Attention among the pixels of each window, with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, channels: int, window: int, heads: int) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.scale = (channels // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(0.5 * torch.randn((2 * window - 1) ** 2, heads))
        rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        places = torch.stack([rows.flatten(), columns.flatten()])
        relative = places[:, :, None] - places[:, None, :] + window - 1
        self.register_buffer("relative_position_index", relative[0] * (2 * window - 1) + relative[1])
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        groups, length, channels = x.shape
        qkv = self.qkv(x).reshape(groups, length, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        scores = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        scores = scores + bias.view(length, length, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            scores = scores.view(groups // windows, windows, self.heads, length, length) + mask.unsqueeze(1).unsqueeze(
                0
            )
            scores = scores.view(-1, self.heads, length, length)
        x = (self.softmax(scores) @ v).transpose(1, 2).reshape(groups, length, channels)
        return self.proj(x)


class SwinBlock(nn.Module):
    attn_mask: Tensor | None

    def __init__(self, channels: int, size: int, window: int, heads: int, shift: int) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.register_buffer("attn_mask", self._mask() if shift else None)

    def _mask(self) -> Tensor:
        """-100 between pixels that the roll brought together from opposite edges."""
        regions = torch.zeros(1, self.size, self.size, 1)
        slices = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
        for number, (rows, columns) in enumerate((r, c) for r in slices for c in slices):
            regions[:, rows, columns, :] = number
        windows = window_partition(regions, self.window).view(-1, self.window**2)
        difference = windows.unsqueeze(1) - windows.unsqueeze(2)
        return difference.masked_fill(difference != 0, -100.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        shortcut = x
        x = self.norm1(x).view(batch, self.size, self.size, channels)
        if self.shift > 0:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = window_partition(x, self.window).view(-1, self.window**2, channels)
        windows = self.attn(windows, self.attn_mask).view(-1, self.window, self.window, channels)
        x = window_reverse(windows, self.window, self.size, self.size)
        if self.shift > 0:
            x = torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))
        x = shortcut + x.view(batch, length, channels)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours become one of twice the channels."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, channels = x.shape
        x = x.view(batch, self.size, self.size, channels)
        corners = [x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :], x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]]
        x = torch.cat(corners, -1).view(batch, -1, 4 * channels)
        return self.reduction(self.norm(x))


class Swin(nn.Module):
    """(N, 3, size, size) -> (N, classes)."""

    def __init__(self, *, size: int, patch: int, window: int, channels: int, heads: int, classes: int) -> None:
        super().__init__()
        side = size // patch
        self.patch_embed = nn.Conv2d(3, channels, patch, patch)
        self.patch_norm = nn.LayerNorm(channels)
        self.layers = nn.Sequential(
            SwinBlock(channels, side, window, heads, 0),
            SwinBlock(channels, side, window, heads, window // 2),
            PatchMerging(channels, side),
            SwinBlock(2 * channels, side // 2, window, 2 * heads, 0),
            SwinBlock(2 * channels, side // 2, window, 2 * heads, window // 2),
        )
        self.norm = nn.LayerNorm(2 * channels)
        self.avgpool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(2 * channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_norm(self.patch_embed(images).flatten(2).transpose(1, 2))
        x = self.norm(self.layers(x))
        return self.head(torch.flatten(self.avgpool(x.transpose(1, 2)), 1))


def swin(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = Swin(size=64, patch=4, window=4, channels=48, heads=3, classes=100)
    return module.eval(), (pictures(count, 3, 64),)
