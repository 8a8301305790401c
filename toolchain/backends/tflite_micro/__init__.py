"""tflite-micro, the interpreter of microcontrollers, on this host: arena, flash, outputs, weights as lookup tables.

Its plain kernels run in a process of their own. CMSIS-NN, which runs on Cortex-M, gives the same integers as these.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from typing import Final

from toolchain.backends.backend import Backend, Measured, Written
from toolchain.graph import Finding, Graph
from toolchain.profiles import DeviceProfile

DISTRIBUTION: Final = "tflite-micro"


def missing() -> str | None:
    """What must be installed."""
    if find_spec("tflite_micro") is not None:
        return None
    return (
        "tflite-micro is not installed (pip install edge-toolchain[mcu]): the arena is known from below only, by the "
        "activations alive at once, and outputs are those of LiteRT"
    )


def measure(written: Written, profile: DeviceProfile) -> Measured:
    """Run one file in tflite-micro (see `measurement`)."""
    from toolchain.backends.tflite_micro.measurement import measure_file

    return measure_file(written, profile, metadata.version(DISTRIBUTION))


def find(graph: Graph, profile: DeviceProfile) -> tuple[Finding, ...]:
    """What of a graph is refused by the interpreter whatever the profile says."""
    from toolchain.backends.tflite_micro.kernels import graph_findings

    return tuple(graph_findings(graph))


TFLITE_MICRO = Backend(
    "tflite_micro",
    "tflite-micro on this host: arena and flash of a microcontroller, outputs of its kernels",
    ("tflite",),
    missing,
    measure,
    find,
)
