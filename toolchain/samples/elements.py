"""What a user hands in as one sample, or as one batch, read as arrays. Torch tensors are met by duck typing
only.

An element is an array (or anything that numpy makes one of: a torch tensor, nested lists of numbers), a tuple
of arrays for a model of several inputs, a dict of arrays by input name, or any of these with a label:
`(array, 3)`, or the key `label` or `labels` of a dict. What is nested is taken apart in order, and named as a graph
names its inputs: `{"batch": {"ids": a, "mask": b}}` is `batch_ids`, `batch_mask`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import SampleError

LABEL_KEYS: Final = ("labels", "label")


@dataclass(frozen=True)
class Element:
    """Arrays of one sample or one batch, their names (empty where they have none) and the label or labels."""

    arrays: tuple[NDArray[Any], ...]
    names: tuple[str, ...]
    label: NDArray[Any] | None


def read_element(value: Any, where: str, *, batched: bool, labelled: bool | None) -> Element:
    """Read one element. `labelled` None: a pair of an array and a whole number (a row of them a batch) is
    labelled.

    Raises SampleError where the element is no array of numbers.
    """
    names: tuple[str, ...] = ()
    label: Any = None
    if isinstance(value, Mapping):
        label = next((value[key] for key in LABEL_KEYS if key in value), None)
        named = [item for key in value if key not in LABEL_KEYS for item in _taken_apart(str(key), value[key])]
        names, parts = tuple(name for name, _ in named), [part for _, part in named]
    elif isinstance(value, tuple) or (isinstance(value, list) and any(hasattr(v, "shape") for v in value)):
        parts = list(value)
        if labelled or (labelled is None and _is_labelled_pair(parts, batched)):
            label = parts.pop()
        parts = [leaf for part in parts for _, leaf in _taken_apart("", part)]
    else:
        parts = [value]
    if not parts:
        raise SampleError("a sample holds no array", where=where, hint="give at least one array a sample")
    arrays = tuple(as_array(part, where) for part in parts)
    return Element(arrays, names, None if label is None else _as_label(label, where))


def _taken_apart(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The arrays of a nested container under names of their own; a list of numbers is an array."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _taken_apart(f"{name}_{key}", part)
    elif isinstance(value, (tuple, list)) and any(isinstance(v, Mapping) or hasattr(v, "shape") for v in value):
        for position, part in enumerate(value):
            yield from _taken_apart(f"{name}_{position}", part)
    else:
        yield name, value


def as_array(value: Any, where: str) -> NDArray[Any]:
    """Return a value as an array of numbers; a torch tensor is brought to the CPU and off its graph."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        array = np.asarray(value)
    except Exception as error:  # what a foreign type raises on conversion is not ours to know
        raise SampleError(f"a sample is no array: {error}", where=where, hint=_NUMBERS) from error
    if array.dtype.kind not in "biuf":
        raise SampleError(f"a sample is no array of numbers but {_kind(value, array)}", where=where, hint=_NUMBERS)
    return array


_NUMBERS: Final = "give arrays or tensors of numbers, one a model input"


def _kind(value: Any, array: NDArray[Any]) -> str:
    return f"of dtype {array.dtype}" if hasattr(value, "dtype") else f"of type {type(value).__name__}"


def _is_labelled_pair(parts: list[Any], batched: bool) -> bool:
    if len(parts) != 2 or not hasattr(parts[0], "shape"):
        return False
    if isinstance(parts[1], int) and not batched:
        return True
    if not hasattr(parts[1], "shape") or len(parts[1].shape) != int(batched):
        return False
    # The dtype's name is numpy's for arrays and torch's ("torch.int64") for tensors.
    return "int" in str(parts[1].dtype)


def _as_label(value: Any, where: str) -> NDArray[Any]:
    label = as_array(value, where)
    if label.dtype.kind not in "biu":
        raise SampleError(
            f"a label has dtype {label.dtype}, but a class number is whole",
            where=where,
            hint="give whole numbers as labels; for other tasks judge by METRIC=package.module:function",
        )
    return label
