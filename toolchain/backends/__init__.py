"""Back ends: a tool a module or folder, one table."""

from collections.abc import Iterable, Iterator

from toolchain.backends.backend import Backend, Figure, Measured, Placement, Written
from toolchain.backends.instructions import EMULATOR
from toolchain.backends.qnn import QNN
from toolchain.backends.tflite_micro import TFLITE_MICRO
from toolchain.backends.vela import VELA
from toolchain.graph import Finding, Graph
from toolchain.profiles import DeviceProfile

BACKENDS: dict[str, Backend] = {
    "vela": VELA,
    "qnn": QNN,
    "tflite_micro": TFLITE_MICRO,
    "emulator": EMULATOR,
}
"""By name, in the order they are asked."""


def serving(profile: DeviceProfile, file: str) -> Iterator[Backend]:
    """The back ends that a device has for a file."""
    return (backend for backend in BACKENDS.values() if backend.serves(profile, file))


def backend_findings(graph: Graph, profile: DeviceProfile, formats: Iterable[str]) -> tuple[Finding, ...]:
    """What the installed back ends for files of `formats` know to fall off the device before anything is compiled."""
    asked = {backend.name: backend for kind in formats for backend in serving(profile, f"model.{kind}")}
    ready = [backend.find for backend in asked.values() if backend.find and backend.missing() is None]
    return tuple(dict.fromkeys(finding for find in ready for finding in find(graph, profile)))


__all__ = ["BACKENDS", "Backend", "Figure", "Measured", "Placement", "Written", "backend_findings", "serving"]
