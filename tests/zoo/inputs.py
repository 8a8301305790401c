"""What networks of the zoo are given beside pictures: signals, features and tokens, the same on every call."""

from __future__ import annotations

import numpy as np

from tests.zoo.networks import pictures


def signals(count: int, channels: int, length: int, *, level: float = 0.0, seed: int = 0) -> np.ndarray:
    """(count, channels, length) float32 of about unit variance: a few waves each and a little noise.

    `level` is how far samples lie apart as a whole, as what a sensor measures does and sound does not.
    """
    random = np.random.default_rng(seed)
    time = np.arange(length) / length
    frequency = random.uniform(1, length / 8, (count, channels, 4, 1))
    phase = random.uniform(0, 2 * np.pi, (count, channels, 4, 1))
    loudness = random.uniform(0.2, 1.0, (count, channels, 4, 1))
    waves = (loudness * np.sin(2 * np.pi * frequency * time + phase)).sum(2)
    waves += 0.1 * random.standard_normal(waves.shape) + level * random.standard_normal((count, channels, 1))
    return waves.astype(np.float32)


def spectrograms(count: int, bands: int, frames: int) -> np.ndarray:
    """(count, bands, frames) float32 of about unit variance: slowly changing, softer and louder."""
    changing = pictures(count, 1, max(bands, frames))[:, 0, :bands, :frames]
    return changing + features(count, 1, 1, seed=1)


def features(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """(count, *shape) float32, normally distributed."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def tokens(count: int, length: int, vocabulary: int, seed: int = 0) -> np.ndarray:
    """(count, length) int64 below `vocabulary`, frequent ones more often, as in texts."""
    draws = np.random.default_rng(seed).random((count, length))
    return (vocabulary * draws**2).astype(np.int64)


def lengths_mask(count: int, length: int, seed: int = 0) -> np.ndarray:
    """(count, length) int64: ones, then zeros where a shorter text is padded."""
    lengths = np.random.default_rng(seed).integers(length // 2, length + 1, (count, 1))
    return (np.arange(length) < lengths).astype(np.int64)
