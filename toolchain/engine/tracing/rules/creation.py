"""Tensors made of nothing: every shape is known, so they are constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from toolchain.engine.tracing.builder import CannotLower, GraphBuilder
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.engine.tracing.rules.shape import expand
from toolchain.graph import DType

_NOT_VALUES = ("dtype", "layout", "device", "pin_memory", "memory_format", "requires_grad")


def filled(b: GraphBuilder, value: Any) -> str:
    """The wanted tensor, everywhere `value`: a number, or a tensor of one element."""
    kind = b.wanted[0]
    if isinstance(value, str):
        return expand(b, b.cast(b.reshape(value, ()), kind.dtype), kind.shape)
    _check_fits(value, kind.dtype)
    return b.constant(np.full(kind.shape, value, kind.dtype.numpy))


def _check_fits(value: Any, dtype: DType) -> None:
    if isinstance(value, complex):
        raise CannotLower("complex numbers are not supported")
    if dtype is DType.FLOAT32 and np.isfinite(value) and abs(value) > np.finfo(np.float32).max:
        raise CannotLower(f"{value} is beyond float32")


def _everywhere(value: float) -> Rule:
    return lambda b, *_, **__: filled(b, value)


def _full(b: GraphBuilder, _: Any, value: Any, **__: Any) -> str:
    """full and full_like: (shape or tensor, value)."""
    return filled(b, value)


def _new_full(b: GraphBuilder, _: str, __: Any, value: Any, **___: Any) -> str:
    return filled(b, value)


def _sequence(create: Callable[..., torch.Tensor]) -> Rule:
    """What torch makes of the same numbers, in the type it says the result has."""

    def rule(b: GraphBuilder, *numbers: Any, **named: Any) -> str:
        values = {key: value for key, value in named.items() if key not in _NOT_VALUES}
        dtype: torch.dtype = getattr(torch, b.wanted[0].dtype)
        return b.constant(create(*numbers, **values, dtype=dtype).numpy())

    return rule


CREATION: dict[str, Rule] = {
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), _everywhere(0)),
    # nothing may read what is in them before it is written
    **dict.fromkeys(("empty", "empty_like", "new_empty", "empty_permuted", "empty_strided"), _everywhere(0)),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), _everywhere(1)),
    **dict.fromkeys(("full", "full_like"), _full),
    "new_full": _new_full,
    "scalar_tensor": lambda b, value, **_: filled(b, value),
    "fill": lambda b, x, value: filled(b, value),
    "zero": lambda b, x: filled(b, 0),
    "arange": _sequence(torch.arange),
    "linspace": _sequence(torch.linspace),
    "logspace": _sequence(torch.logspace),
    "eye": _sequence(torch.eye),
}
