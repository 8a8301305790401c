"""Trains a network once for a seed, on one thread, and keeps its weights by everything that determines them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from hard.network import Array

BATCH = 32
Loss = Callable[[Tensor, Tensor], Tensor]
Augment = Callable[[Tensor], Tensor]


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels, label_smoothing=0.05)


def mask_features(features: Tensor) -> Tensor:
    """SpecAugment (Park et al., arXiv 1904.08779) on (N, frames, bands): moved in time, without a band and a span."""
    frames, bands = features.shape[1:]
    features = features.roll(int(torch.randint(-4, 5, ())), 1).clone()
    low, start = int(torch.randint(bands - 4, ())), int(torch.randint(frames - 6, ()))
    features[:, :, low : low + 4] = features.mean()
    features[:, start : start + 6] = features.mean()
    return features


def train(
    module: nn.Module,
    inputs: Array,
    labels: Array,
    *,
    cache: Path,
    epochs: int,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
    loss: Loss = cross_entropy,
    augment: Augment = mask_features,
) -> nn.Module:
    """`module`, trained on inputs (N, ...) and labels (N, ...), in eval mode."""
    key = hashlib.sha256((inspect.getsource(type(module)) + inspect.getsource(train)).encode())
    key.update(repr((epochs, learning_rate, weight_decay, inputs.shape)).encode() + labels.tobytes())
    key.update(np.ascontiguousarray(inputs).tobytes())
    path = cache / f"{type(module).__name__.lower()}-{key.hexdigest()[:16]}.safetensors"
    if path.is_file():
        module.load_state_dict(load_file(path))
        return module.eval()
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    steps = epochs * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.2)
    module.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            value = loss(module(augment(x[chosen])), y[chosen])
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    cache.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)
    return module.eval()


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """The module that `make` gives, with the same first weights every time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return make()
