"""The arena report of tflite-micro's recording interpreter, in bytes.

    total = head (activations and scratch, as planned) + tail (structures that stay, by what they are)

The head is the device's. The tail is a 64-bit host's, whose pointers take twice the bytes of a microcontroller's, so
that the total is an upper bound there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from toolchain.errors import DeviceError

_AREA = re.compile(r"^\[RecordingMicroAllocator\] Arena allocation (total|head|tail) (\d+) bytes$", re.MULTILINE)
_PART = re.compile(r"^\[RecordingMicroAllocator\] '(.+?)' used (\d+) bytes", re.MULTILINE)


@dataclass(frozen=True)
class Arena:
    """What the interpreter took, in bytes; `parts` what the tail and scratch are made of."""

    total: int
    head: int
    tail: int
    parts: Mapping[str, int] = field(default_factory=dict)


def read_report(text: str) -> Arena:
    """The last report in what the process wrote. Raises DeviceError where there is none, or it does not add up."""
    areas = {name: int(size) for name, size in _AREA.findall(text)}
    if areas.keys() != {"total", "head", "tail"} or areas["total"] != areas["head"] + areas["tail"]:
        raise DeviceError(f"tflite-micro reports no arena: {areas or 'no line of it is there'}")
    return Arena(**areas, parts={name: int(size) for name, size in _PART.findall(text)})
