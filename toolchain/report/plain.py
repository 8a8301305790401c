"""Any value as JSON takes it: keys in order, enums and paths as text, NaN and infinity as null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np


def to_plain(value: Any) -> Any:
    """`value` as JSON values. Mappings and sets come out sorted, so that equal values give equal text."""
    if isinstance(value, Enum):
        return to_plain(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (np.generic, np.ndarray)):
        return to_plain(value.tolist())
    return _collection(value)


def _collection(value: Any) -> Any:
    if isinstance(value, Mapping):
        pairs = ((str(to_plain(key)), to_plain(item)) for key, item in value.items())
        return dict(sorted(pairs, key=lambda pair: pair[0]))
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((to_plain(item) for item in value), key=str)
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain({f.name: getattr(value, f.name) for f in fields(value)})
    return value.as_posix() if isinstance(value, PurePath) else str(value)


def finite(value: float | None) -> float | None:
    """A measured number, or None where there is none to speak of."""
    return float(value) if value is not None and math.isfinite(value) else None


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """`numerator / denominator`, or None where either is missing or the quotient means nothing."""
    if numerator is None or not denominator:
        return None
    return finite(numerator / denominator)
