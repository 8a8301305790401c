"""Ranges of tensors by name: measured for activations, and of constants their own values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from toolchain.graph import Graph

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""(low, high) by tensor."""


def range_of(graph: Graph, ranges: Ranges, name: str) -> tuple[float, float]:
    """(low, high) of a tensor: as given, or of the constant's values."""
    if name in ranges:
        return ranges[name]
    constant = graph.constants[name]
    return float(constant.min()), float(constant.max())
