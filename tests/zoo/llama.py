"""A small Llama (Touvron et al., arXiv 2302.13971): RMS norms, rotary positions, shared key heads, gated SiLU."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.inputs import tokens


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.eps))


def rotate_half(x: Tensor) -> Tensor:
    x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)


class Attention(nn.Module):
    """Several query heads share a key and a value head (arXiv 2305.13245)."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.heads, self.shared, self.head_width = heads, shared, width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, shared * self.head_width, bias=False)
        self.v_proj = nn.Linear(width, shared * self.head_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def repeated(self, x: Tensor) -> Tensor:
        batch, heads, length, width = x.shape
        times = self.heads // self.shared
        x = x[:, :, None, :, :].expand(batch, heads, times, length, width)
        return x.reshape(batch, heads * times, length, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        q = self.q_proj(x).view(batch, length, -1, self.head_width).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, -1, self.head_width).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, -1, self.head_width).transpose(1, 2)
        q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        y = F.scaled_dot_product_attention(q, self.repeated(k), self.repeated(v), is_causal=True)
        return self.o_proj(y.transpose(1, 2).contiguous().view(batch, length, width))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, shared: int, hidden: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(width)
        self.self_attn = Attention(width, heads, shared)
        self.post_attention_layernorm = RMSNorm(width)
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y = self.post_attention_layernorm(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class Llama(nn.Module):
    """(N, length) int64 -> logits (N, length, vocabulary)."""

    inv_freq: Tensor

    def __init__(self, *, vocabulary: int, width: int, heads: int, shared: int, depth: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, heads, shared, 5 * width // 2) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        head_width = width // heads
        self.register_buffer("inv_freq", 10000.0 ** (-torch.arange(0, head_width, 2).float() / head_width))

    def forward(self, words: Tensor) -> Tensor:
        positions = torch.arange(words.shape[1], device=words.device).float()
        angles = torch.outer(positions, self.inv_freq)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        x = self.embed_tokens(words)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.lm_head(self.norm(x))


def llama(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    module = Llama(vocabulary=300, width=64, heads=4, shared=2, depth=2)
    return module.eval(), (tokens(count, 24, 300),)
