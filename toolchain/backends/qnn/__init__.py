"""Qualcomm's Hexagon tensor processor (HTP) through QNN, its compiler and emulator: placement of every op, steps from
onnxruntime's CPU, and a context binary for each SoC. Nothing of QNN's libraries is copied."""

from __future__ import annotations

from toolchain.backends.backend import Backend, Measured, Written
from toolchain.graph import Finding, Graph
from toolchain.profiles import DeviceProfile


def _missing() -> str | None:
    from toolchain.backends.qnn.compiler import missing

    return missing()


def _measure(written: Written, profile: DeviceProfile) -> Measured:
    from toolchain.backends.qnn.measure import measure

    return measure(written, profile)


def _find(graph: Graph, profile: DeviceProfile) -> tuple[Finding, ...]:
    from toolchain.backends.qnn.findings import find

    return find(graph, profile)


QNN = Backend(
    name="qnn",
    description="Qualcomm QNN: compiles an ONNX file for the HTP of a Snapdragon, places every op, emulates it",
    formats=("onnx",),
    missing=_missing,
    measure=_measure,
    find=_find,
)

__all__ = ["QNN"]
