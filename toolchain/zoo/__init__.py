"""Models that come with the toolchain, and `load_model` in `resolve.py` for those that do not.

Loaders are named, not imported: listing the zoo needs neither torch nor the packages of the extra `zoo`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class ZooEntry:
    """A model: `package.module:function` that returns it, its sample set, a line for lists, its input's shape."""

    loader: str
    samples: str
    summary: str
    shape: tuple[int, ...]
    trains: bool = False
    """Whether the first call trains it: then the loader takes a `Progress`."""


ZOO: Final[Mapping[str, ZooEntry]] = MappingProxyType(
    {
        "mnist": ZooEntry(
            loader="toolchain.zoo.mnist:load",
            samples="mnist",
            summary="four convolutions on 28x28 digits, trained here in seconds, 98.8 % right",
            shape=(1, 1, 28, 28),
            trains=True,
        ),
        "efficientnet_lite0": ZooEntry(
            loader="toolchain.zoo.efficientnet_lite0:load",
            samples="photos",
            summary="EfficientNet-Lite0 trained on ImageNet, 224x224 pictures, 1,000 classes",
            shape=(1, 3, 224, 224),
        ),
    }
)
