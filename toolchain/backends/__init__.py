"""Back ends: a tool a module or folder, one table."""

from collections.abc import Iterator

from toolchain.backends.backend import Backend, Figure, Measured, Placement, Written
from toolchain.graph import Finding, Graph
from toolchain.profiles import DeviceProfile

BACKENDS: dict[str, Backend] = {}
"""By name, in the order they are asked."""


def serving(profile: DeviceProfile, file: str) -> Iterator[Backend]:
    """The back ends that a device has for a file."""
    return (backend for backend in BACKENDS.values() if backend.serves(profile, file))


def backend_findings(graph: Graph, profile: DeviceProfile, file: str) -> tuple[Finding, ...]:
    """What the installed back ends know to fall off the device before anything is compiled."""
    asked = [backend for backend in serving(profile, file) if backend.find and backend.missing() is None]
    return tuple(finding for backend in asked if backend.find for finding in backend.find(graph, profile))


__all__ = ["BACKENDS", "Backend", "Figure", "Measured", "Placement", "Written", "backend_findings", "serving"]
