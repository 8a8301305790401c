"""Arm Ethos-U through Vela, its compiler: cycles, memory and placement of every operator, before there is a board."""

from __future__ import annotations

from toolchain.backends.backend import Backend, Measured, Written
from toolchain.backends.vela.installation import missing
from toolchain.graph import Finding, Graph
from toolchain.profiles import DeviceProfile


def _measure(written: Written, profile: DeviceProfile) -> Measured:
    from toolchain.backends.vela.measure import measure

    return measure(written, profile)


def _find(graph: Graph, profile: DeviceProfile) -> tuple[Finding, ...]:
    from toolchain.backends.vela.gate import find

    return find(graph, profile)


VELA = Backend(
    name="vela",
    description="Arm Vela: compiles a TFLite file for Ethos-U, estimates cycles and memory, places every operator",
    formats=("tflite",),
    missing=missing,
    measure=_measure,
    find=_find,
)

__all__ = ["VELA"]
